"""The explorer in a real web browser: headless Chromium, driven by its DevTools protocol."""

import asyncio
import base64
import io
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
import zipfile
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image
from real_explorer import DEADLINE, end, is_sofa, keep, point_on, running, wait_for, write_results
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from src.discover import browser
from src.discover.browser import invitation, listen, serve
from src.discover.colours import palette
from src.discover.display import require_display
from src.discover.grouping import HEAD, ROW
from src.discover.panel import TITLE_IN
from src.errors import SettingError
from src.store.groups import read_groups
from src.store.paths import groups_path, tags_path
from src.store.tags import read_tags

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZE = (1300, 1000)  # of the browser's window
SMALL = dict(width=800, height=457, deviceScaleFactor=1, mobile=False)  # of one of 800 x 600
BUTTONS = {"none": 0, "left": 1, "right": 2, "middle": 4}
KEYS = {"Enter": "\r"}
MODIFIERS = {"Ctrl": 2, "Meta": 4, "Shift": 8}
CODES = {"Escape": 27}  # without it a dialog hears nothing

FILLS = (  # the last picture has the figure's present size, but for a part of a pixel
    "figure && Math.abs(figure.imageObj.naturalWidth - figure.canvas.width) <= 2"
    " && Math.abs(figure.imageObj.naturalHeight - figure.canvas.height) <= 2"
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium not installed")


@contextmanager
def served(folder, *settings):
    """The explorer on a free port, and the address of its page."""
    write_results(folder)
    with running(folder, "args.browser=True", "args.port=0", *settings) as explorer:
        line = explorer.stdout.readline()
        assert "http://" in line, explorer.stderr.read()
        yield explorer, line.split()[1]


@asynccontextmanager
async def connected(address):
    """A websocket."""
    connection = await websocket_connect(address, max_message_size=2**27)
    try:
        yield connection
    finally:
        connection.close()
        while await asyncio.wait_for(connection.read_message(), DEADLINE) is not None:
            pass  # the other side's farewell comes last


class Page:
    """A page of a browser, its pointer and its keyboard."""

    def __init__(self, connection):
        self.connection = connection
        self.asked = 0

    async def ask(self, method, **parameters):
        """Answer to one command of the protocol; events that arrive before it are left out."""
        self.asked += 1
        message = {"id": self.asked, "method": method, "params": parameters}
        await self.connection.write_message(json.dumps(message))
        while True:
            answer = json.loads(await asyncio.wait_for(self.connection.read_message(), DEADLINE))
            if answer.get("id") == self.asked:
                return answer

    async def value(self, expression):
        """Value of a JavaScript expression; None while a page is being loaded."""
        answer = await self.ask("Runtime.evaluate", expression=expression)
        return answer.get("result", {}).get("result", {}).get("value")

    async def grab(self):
        """What the page shows, (H, W, 3) uint8."""
        png = (await self.ask("Page.captureScreenshot"))["result"]["data"]
        return np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))

    async def point(self, x, y):
        """Move the pointer."""
        await self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def click(self, x, y, button="left", modifiers=0):
        """Move the pointer and press a button, with keys of MODIFIERS held."""
        await self.point(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1,
                buttons=BUTTONS[button if kind == "mousePressed" else "none"], modifiers=modifiers,
            )  # fmt: skip

    async def drag(self, start, end):
        """Move the pointer from (x, y) to (x, y) with its left button down."""
        kinds = ("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)
        for kind, (x, y) in kinds:
            await self.ask(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1,
                buttons=BUTTONS["none" if kind == "mouseReleased" else "left"],
            )  # fmt: skip

    async def press(self, *keys):
        """Press and release keys, one after the other; such as Ctrl+z both together."""
        for name in keys:
            *held, key = name.rsplit("+", 1)
            text = "" if held else KEYS.get(key, key if len(key) == 1 else "")
            key = {"key": key, "windowsVirtualKeyCode": CODES.get(key, 0)}
            key["modifiers"] = sum(map(MODIFIERS.get, held))
            await self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **key)
            await self.ask("Input.dispatchKeyEvent", type="keyUp", **key)

    async def shows(self, condition, what, act=None):
        """A screenshot, after an action, for which a condition holds."""
        deadline = time.monotonic() + DEADLINE
        if act is not None:
            await act
        while time.monotonic() < deadline:
            picture = await self.grab()
            if condition(picture):
                return picture
        keep(picture, "browser_failure")
        return pytest.fail(f"the page does not show {what} within {DEADLINE} s")

    async def comes(self, expression, expected):
        """Wait until a JavaScript expression has a value."""
        deadline = time.monotonic() + DEADLINE
        while (value := await self.value(expression)) != expected:
            if time.monotonic() > deadline:
                keep(await self.grab(), "browser_failure")
                pytest.fail(f"`{expression}` is {value!r} instead of {expected!r}")
            await asyncio.sleep(0.02)


@asynccontextmanager
async def chromium(profile, address, ratio=1):
    """A page of a headless browser, on a screen with `ratio` pixels for one of the page."""
    browser = subprocess.Popen(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={profile}",
            f"--force-device-scale-factor={ratio}",
            f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        said = profile / "DevToolsActivePort"  # a line with the port, one with a path

        def pages():
            if not said.is_file() or len(said.read_text().split()) < 2:
                return None
            address = f"http://127.0.0.1:{said.read_text().split()[0]}/json/list"
            with urllib.request.urlopen(address, timeout=DEADLINE) as answer:
                return [page for page in json.load(answer) if page["type"] == "page"] or None

        target = wait_for(pages, "page", browser)[0]["webSocketDebuggerUrl"]
        async with connected(target) as connection:
            page = Page(connection)
            await page.ask("Emulation.setFocusEmulationEnabled", enabled=True)
            await page.ask("Page.navigate", url=address)
            yield page
    finally:
        end(browser)


@needs_chromium
def test_the_page_answers_pointer_and_keys_and_opens_further_figures(tmp_path):
    async def explore(address):
        async with chromium(tmp_path / "profile", address) as page:
            await page.comes(FILLS, True)
            await page.comes("loading.hidden", True)
            first = await page.shows(lambda now: is_sofa(now).any(), "the map")
            keep(first, "browser_map")
            spot = point_on(first)

            def has_tip(now):  # the thumbnail of a segment covers a part of the map
                return (now != first)[:800].any(axis=-1).sum() > 5000

            keep(await page.shows(has_tip, "a thumbnail", page.point(*spot)), "browser_thumbnail")
            await page.point(600, 60)  # above the map
            await page.shows(is_blue, "all points blue", page.press("b"))
            await page.shows(has_sofa, "the true classes", page.press("g"))

            await page.click(*spot, "right")
            await page.comes("document.title", "Nearest neighbours")
            keep(await page.shows(has_thumbnail, "the neighbours"), "browser_neighbours")
            await page.value("history.back()")
            await page.comes("document.title", "Embedding space")
            await page.shows(has_sofa, "the map again")
            await page.click(*spot)
            await page.comes("document.title", "Image")
            keep(await page.shows(has_red_box, "the image"), "browser_image")
            await page.value("document.querySelector('nav > span:last-of-type button').click()")
            await page.comes("document.title", "Embedding space")
            assert await page.value("document.querySelectorAll('nav > span').length") == 2

            await page.comes(FILLS, True)
            await page.press("c", *"elbow", "Enter")
            await page.comes("document.title", "Elbow")
            await page.comes(FILLS, True)
            await page.press("3")
            keep(await page.shows(has_curve, "the elbow curve"), "browser_elbow")
            await page.press("Enter")
            await page.comes("document.title", "Embedding space")
            await page.comes(FILLS, True)
            await page.shows(has_third_colour, "the clusters")
            await page.value("document.querySelector('nav > span:last-of-type button').click()")

            await page.comes(FILLS, True)
            await page.click(*spot)
            await page.comes("document.title", "Image")
            await page.comes(FILLS, True)
            await page.press("Escape")
            await page.comes("document.title", "Embedding space")
            await page.comes(FILLS, True)
            await page.shows(is_blue, "all points blue", page.press("b"))
            await page.ask("Page.reload")
            await page.comes("performance.getEntriesByType('navigation')[0].type", "reload")
            await page.comes(FILLS, True)
            await page.shows(has_blue, "the same after reloading")

            async with chromium(tmp_path / "other", address, ratio=2) as other:
                await other.comes(FILLS, True)
                assert await other.value("figure.canvas.width / innerWidth") == 2  # all its pixels
                keep(await other.shows(has_sofa, "colours of its own"), "browser_fine_screen")
                await page.shows(lambda now: not has_blue(now), "no tags", page.press("a"))
                await tag_all(other, "settee")
                await page.shows(has_sofa, "the other's tag")  # the first has that colour too
                keep(await page.grab(), "browser_tag_of_another")
                how = dict(behavior="allow", downloadPath=str(tmp_path))
                await other.ask("Browser.setDownloadBehavior", **how)
                await other.press("e")
                await found(tmp_path / "settee.zip")
                with zipfile.ZipFile(tmp_path / "settee.zip") as file:
                    assert "settee/segments.csv" in file.namelist()
                await page.value("document.getElementById('end').click()")
                await page.comes("ask.open && ask.innerText.includes('Another one is')", True)
                keep(await page.grab(), "browser_end")
                await page.press("Escape")
                await page.comes("ask.open", False)
                await page.ask("Emulation.setDeviceMetricsOverride", **SMALL)
                await page.comes(FILLS, True)
                keep(await page.shows(has_sofa, "the map"), "browser_small")
                await page.value("window.dispatchEvent(new Event('focus'))")
                await page.comes(FILLS, True)
                await page.value("document.getElementById('end').click()")
                await page.value("ask.querySelector('button').click()")
                for one in (page, other):
                    await one.comes("ended.innerText", "The explorer has ended.")
                faded = await other.shows(lambda now: not has_sofa(now), "only that")
                keep(faded, "browser_ended")

    with served(tmp_path) as (explorer, address):
        asyncio.run(explore(address))
        explorer.wait(DEADLINE)
        log = explorer.stderr.read()
    assert explorer.returncode == 0, log
    assert "Completed" in log and "Traceback" not in log and "WARNING" not in log, log


@needs_chromium
def test_the_overview_of_groups_names_joins_takes_apart_and_undoes_in_a_browser(tmp_path):
    async def explore(address):
        (table,) = tmp_path.glob("embeddings/*/embeddings*.p")

        def tags():
            return {entry[-1] for entry in read_tags(tags_path(table))}

        def groups():
            return sorted(set(read_groups(groups_path(table)).values()))

        async with chromium(tmp_path / "profile", address) as page:
            await page.comes(FILLS, True)
            await page.press("0")
            await page.comes("document.title", "Groups")
            await page.comes(FILLS, True)
            keep(await page.shows(has_thumbnail, "the groups"), "browser_groups")
            assert groups() == [0, 1]
            await page.click(*await place_of_group(page, 0))
            await page.comes("document.querySelectorAll('nav > span').length", 3)  # its sheet
            await page.comes("document.title", "Groups")
            await page.comes(FILLS, True)
            await page.shows(has_active, "the active row")
            for key in ("Ctrl+z", "Meta+z", "u"):
                await page.press(*"settee", "Enter")
                await until(lambda: tags() == {"settee"}, page)
                await page.value("document.activeElement.blur()")
                await page.press(key)
                await until(lambda: tags() == set(), page)
            await page.press(*"settee")
            keep(await page.shows(has_active, "the question"), "browser_groups_question")
            await page.press("Enter")
            await until(lambda: tags() == {"settee"}, page)
            await page.click(*await place_of_group(page, 1), modifiers=MODIFIERS["Shift"])
            await until(lambda: groups() == [0] or groups() == [1], page)
            await page.press("Delete")
            await until(lambda: groups() == [-1], page)
            await page.press("u", "u")
            await until(lambda: groups() == [0, 1], page)
            await page.press("Tab")
            async with chromium(tmp_path / "other", address) as other:
                await other.comes(FILLS, True)
                await other.press("0")
                await other.comes("document.title", "Groups")
                await other.ask("Emulation.setDeviceMetricsOverride", **SMALL)
                await other.comes(FILLS, True)
                await other.shows(has_thumbnail, "the same groups")
                await other.click(*await place_of_group(other, 0))
                keep(await other.shows(has_active, "the active row"), "browser_groups_small")
                await other.press("Escape", "?")
                first = await other.shows(has_banner, "the commands")
                keep(first, "browser_help_small")

                def is_next(now):
                    return has_banner(now) and (now != first).any(axis=-1).sum() > 1000

                keep(await other.shows(is_next, "more", other.press("?")), "browser_help_small_2")

    with served(tmp_path) as (explorer, address):
        asyncio.run(explore(address))
        explorer.send_signal(signal.SIGTERM)
        explorer.wait(DEADLINE)
        log = explorer.stderr.read()
    assert "Traceback" not in log, log


async def place_of_group(page, number):
    """Pixel (x, y) on the words of a group, by its place among those that show."""
    place = await page.value("JSON.stringify(figure.canvas.getBoundingClientRect())")
    left, top = (json.loads(place)[side] for side in ("left", "top"))
    return left + 60, top + 100 * TITLE_IN + HEAD + (number + 0.5) * ROW


async def until(condition, page):
    """Wait until what a page has done has come to the disk."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            keep(await page.grab(), "browser_failure")
            pytest.fail("the files do not change")
        await asyncio.sleep(0.02)


async def found(path):
    """Wait until a file is there."""
    deadline = time.monotonic() + DEADLINE
    while not path.is_file():
        assert time.monotonic() < deadline, f"{path} has not come"
        await asyncio.sleep(0.02)


async def tag_all(page, tag):
    """Draw a rectangle around all points, then name them."""
    await page.press("l", "l")
    await page.drag((20, 95), (1000, 790))
    await page.comes("document.title", "Selection")
    await page.comes(FILLS, True)
    await page.press("n", *tag, "Enter")


def has_sofa(picture):
    return is_sofa(picture).any()


def is_blue(picture):
    return has_blue(picture) and not has_sofa(picture)


def has_blue(picture):
    return (picture == (31, 119, 180)).all(axis=-1).any()


def has_third_colour(picture):
    return (picture == palette(3)[2]).all(axis=-1).any()


def has_curve(picture):
    """Whether the blue line of the elbow curve shows."""
    return (picture == (31, 119, 180)).all(axis=-1).sum() > 300


def has_thumbnail(picture):
    return (picture == 60).all(axis=-1).sum() > 1000


def has_active(picture):
    """Whether the ground of a row of the overview shows that it is active."""
    return (picture == (220, 231, 247)).all(axis=-1).sum() > 5000


def has_banner(picture):
    """Whether the middle of the page is white paper with few words."""
    height, width = picture.shape[:2]
    middle = picture[height // 4 : height // 2, width // 4 : width // 2]
    return (middle == 255).all(axis=-1).mean() > 0.5


def has_red_box(picture):
    return (picture == (255, 0, 0)).all(axis=-1).sum() > 100


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_is_reported(tmp_path, number):
    with served(tmp_path) as (explorer, address):
        explorer.send_signal(number)
        explorer.wait(DEADLINE)
        log = explorer.stderr.read()
    assert explorer.returncode == 128 + number, log
    assert "never retrieved" not in log and "was destroyed" not in log, log


@pytest.fixture
def visit(capsys):
    """Serves figures to a coroutine function of a `Visit`."""

    def visit(visitor):
        async def both():
            explorers, problems = [], []

            def make(windows):
                if problems:
                    raise SettingError(problems[0])
                figure = windows.new((4, 3), "Map")
                taken = []
                keeping = SimpleNamespace(take=lambda **what: taken.append(what))
                explorers.append(
                    SimpleNamespace(
                        map=SimpleNamespace(figure=figure), taken=taken, keeping=keeping
                    )
                )
                return explorers[-1]

            server = asyncio.ensure_future(serve(make, listen("127.0.0.1", 0)))
            await asyncio.sleep(0)  # the server's turn
            address = capsys.readouterr().out.split()[1]
            await asyncio.wait_for(visitor(Visit(address, explorers, problems)), DEADLINE)
            server.cancel()
            await asyncio.wait([server])

        asyncio.run(both())

    return visit


class Visit:
    """The address of a page, as printed, the explorers made so far, what hinders further ones."""

    def __init__(self, address, explorers, problems):
        self.address, self.explorers, self.problems = address, explorers, problems
        self.web_address = address.replace("http", "ws")
        self.figure = explorers[0].map.figure

    @asynccontextmanager
    async def page(self, viewer=""):
        """The connection of a page with nothing read from it yet."""
        async with connected(f"{self.web_address}figures?viewer={viewer}") as page:
            yield page

    async def arrive(self, viewer=""):
        """Open a page, leave it, and give the key of its viewer."""
        async with self.page(viewer) as page:
            return json.loads(await page.read_message())["viewer"]


def test_only_who_knows_the_secret_and_comes_from_the_page_is_let_in(visit):
    async def visitor(here):
        client = AsyncHTTPClient()
        assert b"<nav>" in (await client.fetch(here.address)).body
        root, key = here.address.rsplit("/", 2)[0], await here.arrive()
        for path in ("/", f"/{key}/1/socket", "/figures", "/mpl.js"):
            with pytest.raises(HTTPClientError, match="404"):
                await client.fetch(root + path)
        for path in ("figures", f"{key}/1/socket"):
            web_socket = here.web_address + path
            foreign = HTTPRequest(web_socket, headers={"Origin": "http://elsewhere.example"})
            with pytest.raises(HTTPClientError, match="403"):
                await websocket_connect(foreign)
            async with connected(web_socket):
                pass

    visit(visitor)


def is_answer(message):
    return isinstance(message, str) and json.loads(message)["type"] == "capture_scroll"


def test_pictures_and_moves_wait_until_the_last_picture_is_drawn(visit):
    async def visitor(here):
        async with connected(f"{here.web_address}{await here.arrive()}/1/socket") as page:
            moves = []
            here.figure.canvas.mpl_connect(
                "motion_notify_event", lambda event: moves.append(event.x)
            )

            async def pictures_after(*kinds):
                """How many pictures arrive in answer to messages."""
                for kind in (*kinds, "refresh"):  # this one has an answer
                    await page.write_message(json.dumps({"type": kind}))
                count = 0
                while not is_answer(message := await page.read_message()):
                    count += isinstance(message, bytes)
                return count

            pointer = {"type": "motion_notify", "y": 5, "button": 0, "buttons": 0, "modifiers": []}
            assert await pictures_after("draw") == 1
            for x in (10, 20, 30):
                await page.write_message(json.dumps({**pointer, "x": x}))
            await pictures_after("drawn")
            assert moves == [30]
            assert await pictures_after("draw") == 1
            assert await pictures_after("draw", "draw") == 0
            assert await pictures_after("drawn") == 1

    visit(visitor)


def test_a_figure_can_be_downloaded_and_closed_but_the_map_stays(visit):
    async def visitor(here):
        client, key = AsyncHTTPClient(), await here.arrive()
        here.figure.canvas.manager.viewer.new_figure((2, 1), "Image")
        png = (await client.fetch(f"{here.address}{key}/1/picture.png")).body
        assert Image.open(io.BytesIO(png)).size == (800, 600)  # 4 x 3 inches of 200 pixels
        for missing in (f"{key}/1/picture.doc", f"{key}/3/picture.png", "nobody/1/picture.png"):
            with pytest.raises(HTTPClientError, match="404"):
                await client.fetch(here.address + missing)
        async with here.page(key) as page:
            both = json.loads(await page.read_message())
            assert both == {"viewer": key, "viewers": 1, "figures": [[1, "Map"], [2, "Image"]]}
            for number in (1, 2):
                await page.write_message(json.dumps({"close": number}))
            assert json.loads(await page.read_message())["figures"] == [[1, "Map"]]

    visit(visitor)


def test_an_export_is_offered_as_a_download(visit, tmp_path):
    (tmp_path / "Kühe" / "data").mkdir(parents=True)
    (tmp_path / "Kühe" / "data" / "1.txt").write_text("one")

    async def visitor(here):
        client = AsyncHTTPClient()
        async with here.page() as page:
            key = json.loads(await page.read_message())["viewer"]
            here.figure.canvas.manager.viewer.hand_out(tmp_path / "Kühe")
            assert json.loads(await page.read_message())["download"] == 0
        answer = await client.fetch(f"{here.address}{key}/0/folder.zip")
        named = answer.headers["Content-Disposition"]
        assert named == "attachment; filename*=UTF-8''K%C3%BChe.zip"
        with zipfile.ZipFile(io.BytesIO(answer.body)) as file:
            assert file.read("Kühe/data/1.txt") == b"one"
        for missing in (f"{key}/1/folder.zip", "nobody/0/folder.zip"):
            with pytest.raises(HTTPClientError, match="404"):
                await client.fetch(here.address + missing)

    visit(visitor)


def test_every_page_has_an_explorer_of_its_own_and_knows_it_again(visit):
    async def visitor(here):
        first = await here.arrive()
        assert len(here.explorers) == 1  # it was made before there was a page
        second = await here.arrive()
        assert second != first and len(here.explorers) == 2
        assert await here.arrive(first) == first and await here.arrive("gone") != first
        assert len(here.explorers) == 3
        async with here.page(first) as page, here.page(second):
            assert json.loads(await page.read_message())["viewers"] == 1
            assert json.loads(await page.read_message())["viewers"] == 2

    visit(visitor)


def test_figures_of_who_does_not_come_back_are_closed(visit, monkeypatch):
    async def visitor(here):
        closed = asyncio.Event()
        here.figure.canvas.mpl_connect("close_event", lambda event: closed.set())
        key = await here.arrive()
        async with here.page(key):
            monkeypatch.setattr(browser, "STAY_S", 0)
            assert not closed.is_set()
        await closed.wait()
        assert await here.arrive(key) != key

    visit(visitor)


def test_tags_and_groups_of_one_reach_the_others(visit):
    async def visitor(here):
        await here.arrive()
        await here.arrive()
        one, other = here.explorers
        one.keeping.kept(tags=["a tag"])
        one.keeping.kept(groups={}, are_new=True)
        assert other.taken == [{"tags": ["a tag"]}, {"groups": {}, "are_new": True}]
        assert one.taken == []

    visit(visitor)


def test_what_hinders_a_later_explorer_is_told_to_its_page(visit):
    async def visitor(here):
        key = await here.arrive()
        here.problems.append("tags.json is broken")
        async with here.page() as page:
            assert json.loads(await page.read_message()) == {"problem": "tags.json is broken"}
        assert await here.arrive(key) == key  # the others go on

    visit(visitor)


def test_the_link_also_works_without_its_last_slash(visit):
    async def visitor(here):
        answer = await AsyncHTTPClient().fetch(here.address.removesuffix("/"))
        assert answer.effective_url == here.address and b"<nav>" in answer.body
        assert b"Loading the explorer" in answer.body  # until the first picture is there

    visit(visitor)


BEGINNINGS = {  # of files
    "avif": b"\0\0\0", "eps": b"%!PS-Adobe", "gif": b"GIF8", "jpeg": b"\xff\xd8", "pdf": b"%PDF-",
    "pgf": b"%% Creator", "png": b"\x89PNG", "ps": b"%!PS-Adobe", "raw": b"", "svg": b"<?xml",
    "tif": b"II*\0", "webp": b"RIFF",
}  # fmt: skip


def test_every_format_of_the_toolbar_can_be_downloaded(visit):
    async def visitor(here):
        client, key = AsyncHTTPClient(), await here.arrive()
        script = (await client.fetch(here.address + "mpl.js")).body.decode()
        offered = json.loads(script.split("mpl.extensions = ")[1].split(";")[0])
        assert {*offered} <= {*BEGINNINGS}
        for suffix in offered:
            file = (await client.fetch(f"{here.address}{key}/1/picture.{suffix}")).body
            assert len(file) > 100 and file.startswith(BEGINNINGS[suffix]), suffix

    visit(visitor)


POINTER = {"x": 5, "y": 5, "button": 0, "buttons": 0, "modifiers": []}
MALFORMED = [
    b"\xff", "", "{", "[" * 10_000, "null", "7", "[]", "{}", '{"type": null}', '{"type": []}',
    '{"type": "event"}', '{"type": "unknown_event"}', '{"type": "key_press", "key": 7}',
    '{"type": "key_press", "key": "n"}', '{"type": "key_press", "key": ""}',
    '{"type": "toolbar_button", "name": "download"}',
    '{"type": "button_press", "x": 1, "y": 1, "button": 3, "buttons": 8, "modifiers": []}',
    '{"type": "toolbar_button"}', '{"type": "motion_notify"}', '{"type": "resize", "width": "9"}',
    *(
        json.dumps({"type": "set_device_pixel_ratio", "device_pixel_ratio": ratio})
        for ratio in (0, -1, 1e-9, 9999, 10**400, float("nan"), float("inf"), None, "1", [])
    ),
    *(
        json.dumps({"type": "resize", "width": width, "height": 300})
        for width in (0, -5, 0.5, 10**6, float("nan"))
    ),
    json.dumps({"type": "button_press", **POINTER, "button": "left"}),
    json.dumps({"type": "button_press", **POINTER, "modifiers": [[]]}),
    json.dumps({"type": "scroll", **POINTER}),
]  # fmt: skip


def test_malformed_messages_change_nothing_and_say_nothing(visit, capsys, caplog):
    async def visitor(here):
        figure, key = here.figure, await here.arrive()
        size = tuple(figure.bbox.size)
        mine = here.web_address + key
        async with connected(f"{mine}/1/socket") as page, connected(f"{mine}/9/socket"):
            for message in MALFORMED:
                await page.write_message(message, binary=isinstance(message, bytes))
            await page.write_message(json.dumps({"type": "refresh"}))
            while not is_answer(await page.read_message()):
                pass
        assert tuple(figure.bbox.size) == size and figure.canvas.device_pixel_ratio == 1
        figure.canvas.manager.viewer.new_figure((2, 1), "Image")
        async with here.page(key) as page:
            for message in (
                "{",
                "[]",
                '{"close": []}',
                '{"close": 9}',
                '{"end": 1}',
                '{"close": 2}',
            ):
                await page.write_message(message)
            assert len(json.loads(await page.read_message())["figures"]) == 2
            assert len(json.loads(await page.read_message())["figures"]) == 1

    visit(visitor)
    assert capsys.readouterr().err == "" and caplog.text == ""


def test_a_page_that_gives_its_own_name_our_number_is_sent_away(visit):
    async def visitor(here):
        client, port = AsyncHTTPClient(), here.address.split("/")[2].split(":")[1]

        async def answer(host):
            request = HTTPRequest(here.address, headers={"Host": f"{host}:{port}"})
            return (await client.fetch(request, raise_error=False)).code

        own = ["127.0.0.1", "[::1]", "localhost", socket.gethostname()]
        assert [await answer(host) for host in own] == [200] * 4
        foreign = [
            "elsewhere.example",
            "127.0.0.1.elsewhere.example",
            "localhost.elsewhere.example",
        ]
        assert [await answer(host) for host in foreign] == [404] * 3

    visit(visitor)


def test_a_taken_port_gives_way_to_the_next_and_a_wrong_address_is_named():
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    second = listen("127.0.0.1", port)
    assert port < second.getsockname()[1] < port + 20
    first.close()
    second.close()
    for address in ("192.0.2.1", "no.such.host.invalid"):  # reserved: never a computer's own
        with pytest.raises(SettingError, match=address):
            listen(address, 8988)


def test_without_a_display_the_ways_on_are_told():
    matplotlib.use("agg")
    with pytest.raises(SettingError, match="args.browser=True.*mainplot.save_path=map.png"):
        require_display()


def test_the_invitation_names_the_way_in_and_warns_where_others_may_take_it():
    local = invitation("127.0.0.1", 8990, "Xyz")
    assert "http://127.0.0.1:8990/Xyz/" in local and "ssh -L 8990:127.0.0.1:8990" in local
    assert "http://[::1]:8990/Xyz/" in invitation("::1", 8990, "Xyz")
    assert "http://192.0.2.7:80/Xyz/" in (open_to_all := invitation("192.0.2.7", 80, "Xyz"))
    assert "Whoever has this link" in open_to_all and "ssh" not in open_to_all
