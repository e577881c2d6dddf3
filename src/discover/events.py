"""Mouse and keyboard in the explorer's windows: which event means which command."""

from functools import partial
from operator import attrgetter

import numpy as np

from src import pictures
from src.discover import state
from src.discover.commands import KEY_OF, KEYS, UNDOING
from src.discover.glances import Glances
from src.discover.segments import GLANCE_PX, UNREADABLE
from src.discover.views import NEIGHBOURS
from src.errors import WriteError

CONTROL = {"ctrl", "control", "cmd", "super"}
SAVING = CONTROL | {"s"}  # held with a click; the letter where a browser keeps Ctrl for itself
ADDING, REMOVING = {"shift"}, CONTROL | {"x"}  # held while a selection is drawn
BUTTONS = {1, 2, 3}  # left, middle, right
STROKE_PX = 5  # a shorter one is a click
LEGEND_STEP = 3  # lines at a turn of the wheel
ZOOM_STEP = 1.25  # larger at a turn of the wheel
TOOLBAR_IS_ON = "the toolbar's pan or zoom is on: press its button again, then clicks open segments"


class Events:
    """Calls the commands of an Explorer."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.held = set()  # keys that are down
        new_timer = explorer.map.figure.canvas.new_timer
        self.glances = Glances(explorer.segments.in_context, new_timer, self._look_again)
        self._stopped = False  # Escape, while something takes its time
        self._stroke = None  # pixels that a selection has been drawn through so far
        self._pan = None  # pixel that the map was moved to last, while it is dragged
        self._slider = None  # the Range whose handle is held
        self._sliding = False  # whether that has moved since the button was pressed
        for way, its in explorer.map.panel.ranges.items():
            its.slider.on_changed(partial(self._on_slider, way))

    def connect(self, view):
        """Listen to the map or a sheet."""
        handlers = {
            "motion_notify_event": self._on_move,
            "button_press_event": self._on_press,
            "button_release_event": self._on_button_up,
            "scroll_event": self._on_scroll,
            "key_press_event": self._on_key,
            "key_release_event": self._on_release,
            "figure_leave_event": self._on_leave,
            "resize_event": self._on_resize,
            "close_event": lambda view, event: self.explorer.forget(view.figure),
        }
        self._listen(view, view.figure, handlers)

    def connect_picture(self, figure):
        """Listen to a window that is only looked at: keys are commands there too."""
        handlers = {
            "key_press_event": self._on_picture_key,
            "key_release_event": self._on_release,
            "figure_leave_event": lambda figure, event: self.held.clear(),
            "close_event": lambda figure, event: self.explorer.forget(figure),
        }
        self._listen(figure, figure, handlers)

    def _listen(self, what, figure, handlers):
        """Call handlers of (what, event); keys and wheel are no longer matplotlib's."""
        manager = figure.canvas.manager
        for theirs in ("key_press_handler_id", "scroll_handler_id"):
            if getattr(manager, theirs, None) is not None:
                figure.canvas.mpl_disconnect(getattr(manager, theirs))
        for name, handler in handlers.items():
            figure.canvas.mpl_connect(name, partial(handler, what))

    # the pointer

    def look(self, view):
        """Show what is under the pointer now: a segment's thumbnail and facts, a button's use."""
        row = self._row(view)
        view.tip.set_visible(False)
        if row is None:
            view.status.set_text(self._use(view))
        else:
            if view is self.explorer.map:
                more = self.explorer.joining.told(row)
            else:
                distance = view.distance_of(row)
                more = "" if distance is None else f"  ·  distance {distance:.4g}"
            view.show_facts(self.explorer.describe(row) + more, self.explorer.path_of(row))
            if view is self.explorer.map or view.wants_tip():
                self._show_tip(view, row)
        view.refresh()

    def _show_tip(self, view, row):
        colour = self.explorer.colour_of(row)
        if (picture := self.glances.get(row)) is not None:
            view.show_tip(picture, colour, GLANCE_PX)
            return
        try:
            picture = pictures.decode(self.explorer.segments.thumbnail(row))
        except UNREADABLE as error:
            self.explorer.say(f"no thumbnail: {error}")
        else:
            view.show_tip(picture, colour)

    def _look_again(self, row):
        for view in self.explorer.views():
            if view.tip.get_visible() and self._row(view) == row:
                self.look(view)

    def _row(self, view):
        return None if view.pointer is None else view.row_at(*view.pointer)

    def _target(self, view):
        """What on the panel is under the pointer: ("command" or "entry", its name), or two ""."""
        on_map = view is self.explorer.map and view.pointer is not None
        return (on_map and view.panel.target_at(*view.pointer)) or ("", "")

    def _use(self, view):
        kind, what = self._target(view)
        if kind == "entry":
            return f"{what}: click to filter out or in; right or Shift: this one only; Ctrl: select"
        if kind == "command":
            use = state.WAYS.get(what) or self._method(what).__doc__.splitlines()[0]
            return f"{use}  ({KEY_OF[what]})"
        return ""

    def _on_move(self, view, event):
        view.pointer = event.x, event.y
        if self._slider is not None:
            self._slider.drag(event.x)
        elif self._pan is not None and view is self.explorer.map:
            view.pan(*np.subtract(view.pointer, self._pan))
            self._pan = view.pointer
            view.redraw()
        elif self._stroke is not None and view is self.explorer.map:
            self._stroke.append(view.pointer)
            view.stroke.set_data(*self._outline().T)
            view.refresh()
        else:
            self.look(view)

    def _on_leave(self, view, event):
        self.held.clear()  # a key let go elsewhere is not reported here
        view.pointer = None
        view.tip.set_visible(False)
        view.refresh()

    # buttons

    def _on_press(self, view, event):
        self._use_window(view)
        view.pointer = event.x, event.y
        self.look(view)
        held = self.held | set(event.modifiers)
        kind, what = self._target(view)
        if what != "helping.toggle":
            self.explorer.helping.hide()
        if view is self.explorer.map and event.button == 1 and self._grabs(event):
            return
        if kind == "command":
            self._do(what)
        elif kind == "entry" and held & SAVING:
            self.explorer.selecting.select_group(what)
        elif kind == "entry":
            self.explorer.filtering.toggle(what, alone=event.button == 3 or "shift" in held)
        elif event.dblclick:
            return  # the second half of a double click
        elif self._is_toolbars(view):
            if event.button != 1 or self._row(view) is not None:
                self.explorer.say(TOOLBAR_IS_ON)
        elif self._draws(view, event):
            self._stroke = [view.pointer]
            view.tip.set_visible(False)
        elif event.button in (2, 3) and self._row(view) is None and self._is_on_map(view, event):
            self._pan = view.pointer
        elif event.button == 1 and view in self.explorer.grouping.views:
            number = view.group_at(*view.pointer)
            if number is not None:
                self.explorer.grouping.click(number, "shift" in held)
        elif event.button == 1 and self._ticks(view, held):
            self.explorer.selecting.click(view, self._row(view), "shift" in held)
        else:
            self._click(view, int(event.button), held)

    def _ticks(self, view, held):
        """Whether a left click ticks a thumbnail of a sheet."""
        in_sheet = view in self.explorer.sheets.views and self._row(view) is not None
        return in_sheet and not held & (SAVING | {"t"})

    def _grabs(self, event):
        """Whether a press of the button takes a handle of the slider."""
        for its in self.explorer.map.panel.ranges.values():
            if its.slider.active and its.slider.ax.bbox.contains(event.x, event.y):
                self._slider, self._sliding = its, False
                its.grab(event.x)
        return self._slider is not None

    def _draws(self, view, event):
        """Whether a press of the button begins a selection."""
        is_left = event.button == 1 and not self.held & {"s", "t"}
        return self.explorer.selecting.tool and is_left and self._is_on_map(view, event)

    def _is_on_map(self, view, event):
        return view is self.explorer.map and view.axes.bbox.contains(event.x, event.y)

    def _is_toolbars(self, view):
        """Whether clicks are matplotlib's, which pans or zooms."""
        toolbar = view.figure.canvas.toolbar
        return toolbar is not None and bool(toolbar.mode)

    def row_here(self):
        """The segment under the pointer in the window that was used last, or None."""
        return self._row(self.explorer.here)

    def click_here(self, button):
        """As a click on the segment under the pointer, in the window that was used last."""
        if self.row_here() is None:
            self.explorer.say("there is no segment under the pointer")
        else:
            self._click(self.explorer.here, button, self.held)

    def _click(self, view, button, held):
        row, explorer = self._row(view), self.explorer
        if row is None:
            return
        is_free = explorer.question is None  # letters held are no part of an answer
        save = bool(held & SAVING) and is_free
        try:
            if button == 1 and "t" in held and is_free:
                explorer.save_here(explorer.save_crop, row, "crop")
            elif button == 1 and save:
                explorer.save_here(explorer.save_image, row, "image")
            elif button == 1:
                explorer.windows.show_image(row)
            elif button == 2 and save:
                explorer.save_here(explorer.save_overview, row, "overview")
            elif button == 2:
                explorer.windows.show_overview(row)
            elif button == 3:
                explorer.show_neighbours(row, None if view is explorer.map else view)
        except UNREADABLE as error:
            explorer.say(f"cannot show this: {error}")
        except WriteError as error:
            explorer.say(str(error))

    def _on_button_up(self, view, event):
        self._slider = self._pan = None
        if self._stroke is None or view is not self.explorer.map:
            return
        self._stroke.append((event.x, event.y))
        outline = self._outline()
        self.drop_stroke()
        held = self.held | set(event.modifiers)
        if np.ptp(outline, axis=0).max() < STROKE_PX:
            view.refresh()
            self._click(view, 1, held)
        else:
            how = "add" if held & ADDING else "remove" if held & REMOVING else "replace"
            self.explorer.selecting.select(self.explorer.map.rows_in(outline), how)

    def is_stopped(self):
        """Whether Escape was pressed while something takes its time; asked once."""
        stopped, self._stopped = self._stopped, False
        return stopped

    def drop_stroke(self):
        """Forget the selection that is being drawn."""
        self._stroke = None
        self.explorer.map.stroke.set_data([], [])

    def _outline(self):
        """Corners of what is being drawn, (V, 2) pixels."""
        stroke = np.array(self._stroke, float)
        if self.explorer.selecting.tool == "lasso":
            return stroke
        (left, lower), (right, upper) = stroke[0], stroke[-1]
        corners = (left, lower), (right, lower), (right, upper), (left, upper), (left, lower)
        return np.array(corners)

    def _on_slider(self, way, value):
        self.explorer.filtering.limit(way, *map(float, value), goes_on=self._sliding)
        self._sliding = True

    def _on_scroll(self, view, event):
        self._use_window(view)
        self.explorer.helping.hide()
        step = 1 if event.step > 0 else -1
        if view is self.explorer.map and view.panel.contains(event.x, event.y):
            view.panel.scroll(-LEGEND_STEP * step)
            self.explorer.show_panel()
        elif self._is_on_map(view, event):
            view.zoom(event.x, event.y, ZOOM_STEP**event.step)
            view.redraw()
            self.look(view)
        elif view is self.explorer.map:
            return
        elif view.kind != NEIGHBOURS:
            self.explorer.shows(view).turn_page(view, -step)
        else:
            self.explorer.change_neighbours(step)

    # keys

    def _on_key(self, view, event):
        if event.key:
            self._use_window(view)
            self._press_key(event.key)

    def _use_window(self, view):
        self.explorer.here, self.explorer.windows.picture = view, None

    def _on_picture_key(self, figure, event):
        if event.key:
            self.explorer.windows.picture = figure
            self._press_key(event.key)
            self.explorer.show_asking()

    def _press_key(self, name):
        explorer, key = self.explorer, _plain(name)
        self.held.add(key)
        if explorer.is_working:
            self._stopped = self._stopped or key == "escape"
            return
        with_control = bool(CONTROL & set(name.split("+")[:-1]))
        if with_control and key == "z":
            key = UNDOING
        elif with_control and key.isascii() and key.isalnum():
            return  # other signs may be typed so: AltGr is Ctrl with Alt on some keyboards
        elif len(name) == 1:
            key = name  # Caps Lock changes what is typed
        if explorer.question is not None:
            explorer.answer(key)
        elif explorer.here in explorer.grouping.views and explorer.grouping.press(key):
            return
        elif key == UNDOING or not with_control:
            self._press_command(key.lower())

    def _press_command(self, key):
        if key in KEYS:
            if KEYS[key] not in ("helping.toggle", "escape"):
                self.explorer.helping.hide()
            self._do(KEYS[key])

    def _do(self, command):
        if command in state.WAYS:
            self.explorer.colour_by(command)
        elif command in BUTTONS:
            self.click_here(command)
        else:
            self._method(command)()

    def _method(self, command):
        return attrgetter(command)(self.explorer)

    def _on_release(self, view, event):
        if event.key:
            self.held.discard(_plain(event.key))

    # windows

    def _on_resize(self, view, event):
        view.tip.set_visible(False)
        view.place()
        if view is self.explorer.helping.view:
            self.explorer.helping.show()
        if view is self.explorer.map:
            self.explorer.show_panel()
            view.keep_home()
        elif len(view.rows):
            self.explorer.shows(view).fill(view)


def _plain(key):
    """A key's own name: without the modifiers held with it, and not changed by Caps Lock."""
    return (key if len(key) == 1 else key.rsplit("+", 1)[-1] or "+").lower()
