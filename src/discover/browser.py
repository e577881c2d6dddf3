"""The explorer in web browsers: a viewer's figures are tabs of one page, by matplotlib's WebAgg.

Every page that is opened has an explorer of its own; the table, tags and groups are everybody's.

What is protected: only this computer is listened to unless an address says otherwise; every path
begins with a secret of this run, so that neither other users of the computer nor foreign web pages
(whose websockets tornado also refuses by their origin) get in, and who asks for a computer of
another name is sent away, as a web page that gives its own name our number does. Messages that no
page of ours sends are left out. What is not: whoever has the link
can use the explorer, and with another address than this computer's own all passes the network
unencrypted, the link included.
"""

import asyncio
import contextlib
import io
import ipaddress
import itertools
import json
import re
import secrets
import socket
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from urllib.parse import quote

import matplotlib
import numpy as np
from matplotlib.backend_bases import CloseEvent
from matplotlib.backends.backend_webagg import FigureCanvasWebAgg, FigureManagerWebAgg
from matplotlib.figure import Figure
from PIL import Image
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RedirectHandler, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from src.discover.display import PAPER, Windows
from src.errors import RunError, SettingError
from src.store.exports import write_zip
from src.store.reports import DPI

PAGE = Path(__file__).with_name("browser.html")
PORTS_TRIED = 20
PATIENCE_S = 1.0  # how long a page that does not draw holds up the others
STAY_S = 300.0  # how long a viewer without a page is kept: it may be reloaded, or lose the network
EDGE_PX = 10_000  # of a figure, at most
PART = 2**20  # of a download, in bytes
MAP = 1  # number of the figure that stays open


def _is_number(value):
    return type(value) in (int, float) and abs(value) <= EDGE_PX  # never NaN


def _is_whole(value):
    return type(value) is int and abs(value) <= EDGE_PX


def _is_button(value):
    return type(value) is int and -1 <= value <= 2  # matplotlib knows no others


def _is_key(value):
    return _is_text(value) and re.fullmatch(r"((ctrl|alt|shift|meta)\+)*k.{1,30}", value, re.DOTALL)


def _is_tool(value):
    return value in ("home", "back", "forward", "pan", "zoom")


def _is_text(value):
    return isinstance(value, str)


def _are_texts(value):
    return isinstance(value, list) and all(map(_is_text, value))


_POINTER = {"x": _is_number, "y": _is_number, "button": _is_button, "buttons": _is_whole}
_POINTER |= {"modifiers": _are_texts}
_FIELDS = {  # of what matplotlib's page sends, by the type of the message
    **dict.fromkeys(("draw", "drawn", "refresh", "ack", "send_image_mode", "supports_binary"), {}),
    **dict.fromkeys(("button_press", "button_release", "dblclick", "motion_notify"), _POINTER),
    **dict.fromkeys(("figure_enter", "figure_leave"), _POINTER),
    **dict.fromkeys(("key_press", "key_release"), {"key": _is_key}),
    "scroll": _POINTER | {"step": _is_number},
    "toolbar_button": {"name": _is_tool},
    "resize": {"width": _is_number, "height": _is_number},
    "set_device_pixel_ratio": {"device_pixel_ratio": _is_number},
}


def listen(address, port):
    """Open the socket of a web server; early, so that a wrong address is known at once.

    `address` is the name or number of a network interface: `127.0.0.1` is reached from this
    computer only, `0.0.0.0` from everywhere. Where the port is taken it is one of the next 19, and
    0 is any that is free. No such address here, or no free port, is a SettingError.
    """
    try:
        family = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise SettingError(f"`args.address` {address!r} is not known here: {error}") from error
    problem = None
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            server = socket.create_server((address, candidate), family=family)
        except OSError as error:
            problem = error
        else:
            server.setblocking(False)
            return server
    raise SettingError(
        f"cannot listen to `args.address` {address!r} at `args.port` {port} or the next "
        f"{PORTS_TRIED - 1}: {problem}"
    )


async def serve(make, server):
    """Show explorers to web browsers until one of them ends it for all, or this is cancelled.

    Parameters
    ----------
    make : function of `windows` that gives an `Explorer`
        Called for every viewer; first before anything is served, so that what is wrong ends it.
    server : socket.socket
        From `listen`; closed in the end.
    """
    viewers = Viewers(make)
    secret = secrets.token_urlsafe(12)
    pages = HTTPServer(viewers.application(secret, _hosts(server.getsockname()[0])))
    pages.add_socket(server)
    try:
        viewers.prepare()
        print(invitation(*server.getsockname()[:2], secret), flush=True)
        await viewers.ended.wait()
    finally:
        pages.stop()
        viewers.say_the_end()
        await pages.close_all_connections()


def invitation(address, port, secret):
    """What to open in a browser, here or on another computer; for people to read."""
    ip = ipaddress.ip_address(address)
    here = socket.gethostname()
    host = here if ip.is_unspecified else f"[{address}]" if ip.version == 6 else address
    link = f"Open http://{host}:{port}/{secret}/ in a browser."
    if ip.is_loopback:
        first = f"From another computer, run there first: ssh -L {port}:{host}:{port} {here}"
        return f"{link} Ctrl-C ends it.\n{first}"
    can = "Whoever has this link can use the explorer, and the network can read along."
    return f"{link} {can} Ctrl-C ends it."


def _hosts(address):
    """Pattern of what this computer is called by those who mean it: any number, its own names."""
    names = {"localhost", socket.gethostname()}
    if not ipaddress.ip_address(address).is_loopback:
        names.add(socket.getfqdn())
    return "|".join([r"[0-9.]+", r"\[[0-9a-f:.]+\]", *(re.escape(name.lower()) for name in names)])


class Viewers:
    """All who look at the explorer, by the key that each of their pages has."""

    def __init__(self, make):
        self.make = make
        self.ended = asyncio.Event()
        self._by_key = {}
        self._expected = None  # whom the first page is for

    def prepare(self):
        """Make the first one before there is a page for it."""
        self._expected = self._new()

    def get(self, key):
        """The one with a key; None where there is none."""
        return self._by_key.get(key)

    def welcome(self, key):
        """The one with a key; where that has left, or the key is none, a new one."""
        viewer = self.get(key) or self._expected or self._new()
        if viewer is self._expected:
            self._expected = None
        return viewer

    def _new(self):
        viewer = Viewer(self.make)
        self._by_key[viewer.key] = viewer
        viewer.explorer.keeping.kept = partial(self._share, viewer)
        return viewer

    def _share(self, giver, **what):
        for viewer in self._by_key.values():
            if viewer is not giver:
                viewer.explorer.keeping.take(**what)

    def leave(self, viewer):
        """Close the figures of one who is gone for good."""
        del self._by_key[viewer.key]
        for manager in list(viewer.managers.values()):
            manager.destroy()

    def tell(self):
        """Tell all pages how many look, and which figures are theirs."""
        here = [viewer for viewer in self._by_key.values() if viewer.pages]
        for viewer in here:
            viewer.tell(viewers=len(here))

    def say_the_end(self):
        """Tell all pages that this was it."""
        for page in [page for viewer in self._by_key.values() for page in viewer.pages]:
            page.close(reason="ended")

    def application(self, secret, hosts):
        """The web server's paths, all below the secret, for who asks for `hosts`, a pattern."""
        static = {"path": FigureManagerWebAgg.get_static_file_path()}
        images = {"path": Path(matplotlib.get_data_path()) / "images"}
        mine = {"viewers": self}
        figure = rf"/{secret}/([\w-]+)/([0-9]{{1,9}})"
        application = Application(
            default_handler_class=_Missing,
            websocket_ping_interval=20,  # a connection through SSH stays open
        )
        application.add_handlers(
            f"({hosts})$",
            [
                (rf"/{secret}", RedirectHandler, {"url": f"{secret}/", "permanent": False}),
                (rf"/{secret}/", _Page),
                (rf"/{secret}/mpl.js", _Script),
                (rf"/{secret}/_static/(.*)", StaticFileHandler, static),
                (rf"/{secret}/_images/(.*)", StaticFileHandler, images),
                (rf"/{secret}/figures", _PageSocket, mine),
                (rf"{figure}/socket", _FigureSocket, mine),
                (rf"{figure}/picture\.([a-z]+)", _Download, mine),
                (rf"{figure}/folder\.zip", _Folder, mine),
            ],
        )
        return application


class Viewer:
    """One who looks: an explorer, its figures, and the pages that show them."""

    def __init__(self, make):
        self.key = secrets.token_urlsafe(9)
        self.managers = {}  # by number, from 1: the map
        self.pages = set()
        self.farewell = None  # what closes the figures, while no page shows them
        self._numbers = itertools.count(1)
        self.folders = []  # that were handed out
        self.explorer = make(
            windows=Windows(self.new_figure, self.close_figure, hand_out=self.hand_out)
        )

    def new_figure(self, size_in, title):
        """Figure in a tab of its own."""
        figure = Figure(figsize=size_in, facecolor=PAPER)
        manager = _Manager(self, _Canvas(figure), next(self._numbers))
        self.managers[manager.num] = manager
        manager.set_window_title(title)
        return figure

    def close_figure(self, figure):
        """Close a figure's tab."""
        figure.canvas.manager.destroy()

    def hand_out(self, folder):
        """Offer a folder as a download."""
        self.folders.append(folder)
        self.tell(download=len(self.folders) - 1)

    def tell(self, **more):
        """Tell every page which figures there are."""
        titles = {number: manager.get_window_title() for number, manager in self.managers.items()}
        for page in self.pages:
            page.tell(viewer=self.key, figures=list(titles.items()), **more)


class _Canvas(FigureCanvasWebAgg):
    def get_diff_image(self):
        """PNG of what has changed since the last picture; None where nothing has.

        Does what matplotlib's own does in half the time, by packing less tightly.
        """
        if not self._png_is_old:
            return None
        shown = np.array(self.buffer_rgba()).view(np.uint32)[..., 0]
        is_whole = self._force_full or shown.shape != self._last_buff.shape
        self.set_image_mode("full" if is_whole else "diff")
        sent = shown if is_whole else np.where(shown != self._last_buff, shown, 0)  # 0: as before
        self._last_buff, self._force_full, self._png_is_old = shown, False, False
        png = io.BytesIO()
        rgba = sent.view(np.uint8).reshape(*sent.shape, 4)
        Image.fromarray(rgba).save(png, "PNG", compress_level=1)
        return png.getvalue()


class _Manager(FigureManagerWebAgg):
    """Stands for the window of one figure."""

    def __init__(self, viewer, canvas, number):
        self.viewer = viewer
        self.is_behind = False  # the figure has changed since a picture of it was sent
        super().__init__(canvas, number)

    def show(self):
        """Bring the figure to the front."""
        self.viewer.tell(show=self.num)

    def destroy(self):
        """Close the figure's tab."""
        if self.viewer.managers.pop(self.num, None) is not None:
            self.canvas.callbacks.process("close_event", CloseEvent("close_event", self.canvas))
            self.viewer.tell()

    def set_window_title(self, title):
        """Name the figure's tab."""
        super().set_window_title(title)
        self.viewer.tell()

    def refresh_all(self):
        """Send what has changed, but only after the last change has been drawn.

        A picture that is overtaken while a browser decodes it is lost.
        """
        self.is_behind = any(map(_FigureSocket.is_drawing, self.web_sockets))
        if not self.is_behind:
            if any(page.sent_at for page in self.web_sockets):  # one may have lost a picture
                self.canvas._force_full = True
            super().refresh_all()


class _Missing(RequestHandler):
    def prepare(self):
        self.set_status(404)
        self.finish("Nothing is here: open the link as the explorer has printed it.")


class _Page(RequestHandler):
    def get(self):
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.set_header("Cache-Control", "no-store")
        self.write(PAGE.read_text(encoding="utf-8"))


class _Script(RequestHandler):
    def get(self):
        self.set_header("Content-Type", "application/javascript")
        self.write(FigureManagerWebAgg.get_javascript())


class _Download(RequestHandler):
    def initialize(self, viewers):
        self.viewers = viewers

    def get(self, key, number, suffix):
        manager = _manager_of(self.viewers, key, number)
        if manager is None or suffix not in manager.canvas.get_supported_filetypes():
            raise HTTPError(404)
        name = manager.get_window_title().lower().replace(" ", "_")
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Disposition", f'attachment; filename="{name}.{suffix}"')
        file = io.BytesIO()  # most formats want to seek in it
        manager.canvas.figure.savefig(file, format=suffix, dpi=DPI)
        self.write(file.getvalue())


class _Folder(RequestHandler):
    """A folder that was handed out, as a ZIP file."""

    def initialize(self, viewers):
        self.viewers = viewers

    async def get(self, key, number):
        viewer = self.viewers.get(key)
        if viewer is None or int(number) >= len(viewer.folders):
            raise HTTPError(404)
        folder = viewer.folders[int(number)]
        self.set_header("Content-Type", "application/zip")
        name = quote(f"{folder.name}.zip")
        self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{name}")
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "folder.zip")
            # others go on exploring meanwhile
            await asyncio.get_running_loop().run_in_executor(None, write_zip, path, folder)
            with path.open("rb") as file, contextlib.suppress(StreamClosedError):  # it was enough
                while part := file.read(PART):
                    self.write(part)
                    await self.flush()


def _manager_of(viewers, key, number):
    """What stands for the window of a viewer's figure; None where it is closed."""
    viewer = viewers.get(key)
    return viewer and viewer.managers.get(int(number))


class _Socket(WebSocketHandler):
    """A connection with a page; `hear` gets the objects that it sends."""

    def initialize(self, viewers):
        self.viewers = viewers

    def on_message(self, message):
        with contextlib.suppress(ValueError, RecursionError):  # no JSON
            content = json.loads(message)
            if isinstance(content, dict):
                self.hear(content)

    def send(self, message, **options):
        """Send a message unless the page has gone."""
        with contextlib.suppress(WebSocketClosedError):
            sent = asyncio.ensure_future(self.write_message(message, **options))
            sent.add_done_callback(lambda future: future.exception())


class _PageSocket(_Socket):
    """Tells a page whose it is and which figures there are; the page tells what to close."""

    viewer = None

    def open(self):
        try:
            self.viewer = self.viewers.welcome(self.get_query_argument("viewer", None))
        except RunError as error:  # the tags cannot be read
            self.tell(problem=str(error))
            return
        if self.viewer.farewell is not None:
            self.viewer.farewell.cancel()
        self.viewer.pages.add(self)
        self.viewers.tell()

    def on_close(self):
        if self.viewer is None:
            return
        self.viewer.pages.discard(self)
        if not self.viewer.pages:
            wait = asyncio.get_running_loop().call_later
            self.viewer.farewell = wait(STAY_S, self.viewers.leave, self.viewer)
        self.viewers.tell()

    def hear(self, content):
        if content.get("end") is True:
            self.viewers.ended.set()
        number, managers = content.get("close"), self.viewer.managers if self.viewer else {}
        if type(number) is int and number != MAP and number in managers:
            managers[number].destroy()

    def tell(self, **message):
        self.send(json.dumps(message))


class _FigureSocket(_Socket):
    """Carries one figure's pictures to a page and the pointer and keys back.

    Both wait until the page has drawn what it was sent: over a slow connection the figure then
    follows the pointer in larger steps, instead of being late.
    """

    manager = None
    sent_at = None  # when a picture was sent that has not been drawn yet
    move = None  # the pointer's latest move, not handled yet

    def open(self, key, number):
        self.manager = _manager_of(self.viewers, key, number)
        if self.manager is None:
            self.close()
        else:
            self.set_nodelay(True)
            self.manager.add_web_socket(self)

    def on_close(self):
        if self.manager is not None:
            self.manager.remove_web_socket(self)

    def hear(self, content):
        if self.manager is None or not self._can_be(content):
            return
        if content["type"] == "motion_notify":
            self.move = content
        elif content["type"] == "drawn":
            self.sent_at = None
            if self.manager.is_behind:
                self.manager.refresh_all()
        elif content["type"] != "supports_binary":  # every browser does
            self._move()
            self._handle(content)
        if not self.is_drawing():
            self._move()

    def _can_be(self, content):
        """Whether a page can have sent this; without edges a figure would be lost for all."""
        kind, canvas = content.get("type"), self.manager.canvas
        fields = _FIELDS.get(kind) if _is_text(kind) else None
        if fields is None or not all(fits(content.get(name)) for name, fits in fields.items()):
            return False
        edges, ratio = (
            canvas.figure.bbox.size / canvas.device_pixel_ratio,
            canvas.device_pixel_ratio,
        )
        if kind == "resize":
            edges = [int(content["width"]), int(content["height"])]
        elif kind == "set_device_pixel_ratio":
            ratio = content["device_pixel_ratio"]
        return all(1 <= edge * ratio <= EDGE_PX for edge in edges)

    def is_drawing(self):
        return self.sent_at is not None and time.monotonic() - self.sent_at < PATIENCE_S

    def _move(self):
        if self.move is not None:
            content, self.move = self.move, None
            self._handle(content)

    def _handle(self, content):
        try:
            self.manager.handle_json(content)
        except Exception:  # a window also goes on after an error, and tells it in the terminal
            traceback.print_exc()

    def send_json(self, content):
        self.send(json.dumps(content))

    def send_binary(self, picture):
        self.sent_at = time.monotonic()
        self.send(picture, binary=True)
