"""What the root file system for browser tests has from npm: the browser MCP and the agent's command.

npm runs in the new root, as Debian has it, with the settings that npm has on the host: the host itself needs no npm.

A machine has no network, yet its people start `npx -y @playwright/mcp@…` as their unit says it. So the packages lie in
the root as they were published, and a small registry on the machine's own loopback serves them: npx resolves,
fetches, verifies and unpacks them for each person, as it does at any site. The agent's command is installed for all.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# As units/playwright-mcp@.service has it.
SERVED = "@playwright/mcp@0.0.76"
# A program of its own, which needs no node when it runs. Usable without an account and offline for `claude mcp`.
INSTALLED = "@anthropic-ai/claude-code@2.1.332"

DEBIAN_PACKAGES = ("chromium", "nodejs", "npm")

REGISTRY_PORT = 4873

# Packs a package and all it may need; $1 is the package, in the current folder. Written down by npm itself.
PACK = """\
npm install --package-lock-only --ignore-scripts "$1" >&2
node -e 'for (const [path, entry] of Object.entries(require("./package-lock.json").packages))
    if (path) console.log(path.replace(/.*node_modules\\//, "") + "@" + entry.version)' | xargs npm pack >&2
rm -rf package.json package-lock.json node_modules
"""

# npm takes the engines that a package asks for as advice. The copy in bin/ is the program itself.
INSTALL = """\
npm install --global --prefix /usr/local "$1" >&2
find /usr/local/lib/node_modules -path '*-linux-*/claude' -type f -delete
claude --version >&2
"""

REGISTRY = f'''\
#!/usr/bin/python3 -I
"""A registry for npm on the loopback: the packages beside this file, as they were published."""
import base64, hashlib, json, pathlib, tarfile, urllib.parse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

HERE = pathlib.Path(__file__).parent
PACKAGES = {{}}
for path in HERE.glob("*.tgz"):
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("package/package.json"))
    hash = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    manifest["dist"] = {{
        "tarball": "http://127.0.0.1:{REGISTRY_PORT}/" + path.name,
        "integrity": "sha512-" + hash,
    }}
    PACKAGES[manifest["name"]] = {{
        "name": manifest["name"],
        "dist-tags": {{"latest": manifest["version"]}},
        "versions": {{manifest["version"]: manifest}},
    }}


class Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory=HERE)

    def do_GET(self):
        package = PACKAGES.get(urllib.parse.unquote(self.path[1:]))
        if package is None:
            return super().do_GET()
        body = json.dumps(package).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", {REGISTRY_PORT}), Handler).serve_forever()
'''

UNIT = """\
[Unit]
Description=Registry of npm packages on the loopback

[Service]
ExecStart=/srv/npm/serve
DynamicUser=yes

[Install]
WantedBy=multi-user.target
"""

# All that makes a root what it is, for the hash in its name.
RECIPE = (SERVED, INSTALLED, DEBIAN_PACKAGES, PACK, INSTALL, REGISTRY, UNIT)

# Where npm keeps settings that are not one person's, and a person's.
NPM_SETTINGS = ("/usr/etc/npmrc", "/usr/local/etc/npmrc", "/etc/npmrc", "~/.npmrc")
HOST_FILES = ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt")

# What runs a shell script in the root: the folder there, the script, its $1.
RunIn = Callable[[str, str, str], None]


def install(root: Path, run_in: RunIn) -> None:
    """Put what is from npm into a root file system with DEBIAN_PACKAGES."""
    packages = root / "srv/npm"
    packages.mkdir(mode=0o755)
    with _host_settings(root):
        run_in("/srv/npm", PACK, SERVED)
        run_in("/", INSTALL, INSTALLED)
    serve = packages / "serve"
    serve.write_text(REGISTRY)
    serve.chmod(0o755)
    unit = root / "etc/systemd/system/npm-packages.service"
    unit.write_text(UNIT)
    (unit.parent / "multi-user.target.wants" / unit.name).symlink_to(f"../{unit.name}")
    (root / "etc/npmrc").write_text(f"registry=http://127.0.0.1:{REGISTRY_PORT}/\n")


@contextmanager
def _host_settings(root: Path) -> Iterator[None]:
    """Lend the root what npm on the host reaches its registry with; it may hold secrets, and nothing of it stays."""
    settings = [path.read_bytes() for name in NPM_SETTINGS if (path := Path(name).expanduser()).is_file()]
    lent = {"root/.npmrc": b"\n".join(settings)}
    lent |= {name: (Path("/") / name).read_bytes() for name in HOST_FILES if (Path("/") / name).is_file()}
    before = {name: (root / name).read_bytes() if (root / name).exists() else None for name in lent}
    try:
        for name, content in lent.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        yield
    finally:
        for name, content_before in before.items():
            if content_before is None:
                (root / name).unlink(missing_ok=True)
            else:
                (root / name).write_bytes(content_before)
        shutil.rmtree(root / "root/.npm", ignore_errors=True)
