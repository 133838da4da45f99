"""Control groups: where they are mounted, who is in a slice, what a unit uses and what caps it. On trees made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.observed import Memory
from reconciler.errors import ScanFailed
from reconciler.host import scan_cgroups
from reconciler.host.mounts import mounts
from reconciler.host.scan_cgroups import memory_mount, mount, scan_memory, units_in

T3, MCP, OTHER = "t3-serve@alice.service", "playwright-mcp@alice.service", "t3-serve@bob.service"
V1_NONE = "9223372036854771712"


class Tree:
    """A /proc that tells of mounts, and the control groups below them."""

    def __init__(self, folder: Path) -> None:
        """Begin with no mount."""
        self.proc = folder / "proc"
        self.top = folder / "cgroup"
        self._lines = ["22 1 0:21 / /proc rw,nosuid - proc proc rw"]
        (self.proc / "self").mkdir(parents=True)
        self.top.mkdir()
        self._write()

    def mounted(self, kind: str, options: str = "rw", below: str = "", source: str = "cgroup") -> Tree:
        """Mount a hierarchy."""
        where = self.top / below
        where.mkdir(exist_ok=True)
        return self.line(f"30 22 0:26 / {where} rw,nosuid shared:4 - {kind} {source} {options}")

    def line(self, text: str) -> Tree:
        """Have this line in mountinfo."""
        self._lines.append(text)
        self._write()
        return self

    def _write(self) -> None:
        data = "".join(f"{line}\n" for line in self._lines).encode("utf-8", "surrogateescape")
        (self.proc / "self/mountinfo").write_bytes(data)

    def unified(self, controllers: str = "cpu memory pids") -> Tree:
        """Mount cgroup v2 with these controllers."""
        self.mounted("cgroup2", source="cgroup2")
        (self.top / "cgroup.controllers").write_text(controllers + "\n")
        return self

    def group(self, path: str, **files: str) -> Tree:
        """Make a control group; `memory_max` is its file memory.max."""
        folder = self.top / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")
        return self


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return an empty one."""
    return Tree(tmp_path)


# --- where ---


@pytest.mark.parametrize("line", ["22 1 254:0 / /", "22 1 254:0 / / rw -", "- ext4 x rw"])
def test_a_line_that_is_none_is_an_error(tmp_path: Path, line: str) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(line + "\n")
    with pytest.raises(ScanFailed, match="has a line that is none"):
        mounts(tmp_path)


def test_the_unified_hierarchy_is_where_mountinfo_says(tree: Tree) -> None:
    tree.unified()
    assert mount(tree.proc) == str(tree.top)
    assert memory_mount(tree.proc) == (str(tree.top), True)


def test_on_a_machine_with_both_memory_is_where_its_controller_is(tree: Tree) -> None:
    tree.mounted("cgroup", "rw,cpu,cpuacct", "cpu").mounted("cgroup", "rw,memory", "memory")
    tree.mounted("cgroup2", below="unified", source="cgroup2")
    (tree.top / "unified/cgroup.controllers").write_text("\n")
    assert mount(tree.proc) == str(tree.top / "unified")
    assert memory_mount(tree.proc) == (str(tree.top / "memory"), False)


def test_without_control_groups_nothing_is_known_and_nothing_fails(tree: Tree) -> None:
    assert mount(tree.proc) is None
    assert memory_mount(tree.proc) is None
    assert units_in("user-1000.slice", tree.proc) is None
    assert scan_memory([T3], tree.proc) == {}


@pytest.mark.parametrize(
    "line",
    [
        "40 22 0:50 / /mnt rw - tmpfs  rw",
        "40 22 0:50 / /home/eve/\udcff rw - fuse.sshfs eve rw",
        "40 22 0:50 / /home/eve/\u2028x\x0c rw - fuse.x cgroup2 rw",
        "40 22 0:50 / /home/eve/cgroup2 rw master:1 - fuse.cgroup2 cgroup2 rw",
        "40 22 0:50 / /home/eve rw - fuse",
    ],
)
def test_what_else_is_mounted_under_whatever_name_changes_nothing(tree: Tree, line: str) -> None:
    tree.line(line).unified()
    assert mount(tree.proc) == str(tree.top)


def test_a_hierarchy_of_another_controller_is_not_taken_for_that_of_memory(tree: Tree) -> None:
    tree.mounted("cgroup", "rw,memoryless", "other")
    assert memory_mount(tree.proc) is None


def test_a_mountinfo_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScanFailed, match="self/mountinfo: No such file or directory"):
        mount(tmp_path / "none")


# --- who is in a slice ---


def test_the_units_of_a_slice_are_its_folders(tree: Tree) -> None:
    tree.unified().group(f"user.slice/user-1000.slice/{T3}").group("user.slice/user-1000.slice/session-3.scope")
    tree.group(f"system.slice/{MCP}").group(f"user.slice/user-10001.slice/{OTHER}")
    (tree.top / "user.slice/user-1000.slice/memory.max").write_text("max\n")
    assert units_in("user-1000.slice", tree.proc) == frozenset({T3, "session-3.scope"})


def test_a_slice_that_is_not_there_is_empty(tree: Tree) -> None:
    assert units_in("user-1000.slice", tree.unified().proc) == frozenset()


# --- memory ---


def test_each_unit_has_its_own_use_and_the_lowest_cap_on_its_way_up(tree: Tree) -> None:
    tree.unified()
    tree.group("user.slice", memory_max="max")
    tree.group("user.slice/user-1000.slice", memory_max=str(4 << 30))
    tree.group(f"user.slice/user-1000.slice/{T3}", memory_current="1000", memory_max="max")
    tree.group(f"user.slice/user-1000.slice/{MCP}", memory_current="2000", memory_max=str(1 << 30))
    tree.group(f"system.slice/{OTHER}", memory_current="3000", memory_max="max")
    assert scan_memory([T3, MCP, OTHER], tree.proc) == {
        T3: Memory(1000, 4 << 30),
        MCP: Memory(2000, 1 << 30),
        OTHER: Memory(3000, None),
    }


def test_a_cap_above_holds_where_that_below_is_higher(tree: Tree) -> None:
    tree.unified().group("user.slice", memory_max="5000").group("user.slice/user-1000.slice", memory_max="9000")
    tree.group(f"user.slice/user-1000.slice/{T3}", memory_current="1", memory_max="7000")
    assert scan_memory([T3], tree.proc) == {T3: Memory(1, 5000)}


def test_the_older_hierarchy_tells_the_same(tree: Tree) -> None:
    tree.mounted("cgroup", "rw,memory", "memory")
    tree.group("memory/user.slice/user-1000.slice", memory_limit_in_bytes="8192")
    files = {"memory_usage_in_bytes": "1000", "memory_limit_in_bytes": V1_NONE}
    tree.group(f"memory/user.slice/user-1000.slice/{T3}", **files)
    tree.group(f"memory/system.slice/{OTHER}", **files)
    assert scan_memory([T3, OTHER], tree.proc) == {T3: Memory(1000, 8192), OTHER: Memory(1000, None)}


def test_who_is_not_asked_for_or_has_no_processes_is_not_told(tree: Tree) -> None:
    tree.unified().group(f"system.slice/{T3}", memory_current="1000").group(f"system.slice/{MCP}")
    assert scan_memory([OTHER, MCP], tree.proc) == {}


def test_what_people_make_below_their_own_units_is_not_taken_for_a_unit(tree: Tree) -> None:
    tree.unified().group(f"system.slice/{T3}", memory_current="1000", memory_max="max")
    tree.group(f"user.slice/user-1001.slice/user@1001.service/app.slice/{T3}", memory_current="9", memory_max="9")
    assert scan_memory([T3], tree.proc) == {T3: Memory(1000, None)}


def test_a_group_without_a_cap_file_has_none(tree: Tree) -> None:
    assert scan_memory([T3], tree.unified().group(T3, memory_current="5").proc) == {T3: Memory(5, None)}


def test_the_mount_is_looked_for_once(tree: Tree) -> None:
    tree.unified()
    assert mount(tree.proc) == str(tree.top)
    (tree.proc / "self/mountinfo").unlink()
    assert mount(tree.proc) == str(tree.top)
    assert scan_cgroups.mount.cache_info().hits >= 1
