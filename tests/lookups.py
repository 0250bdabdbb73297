"""See which hosts a process and its children look up or connect to, and let none of it out.

A library in C, compiled by the test, stands before the system's own in every process that is started with it. It sees
what Python code asks for, and what compiled libraries ask for on their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void report(const char *what) {
    char line[512];
    int error = errno, file = open(getenv("LOOKUPS"), O_WRONLY | O_CREAT | O_APPEND, 0666);
    int size = snprintf(line, sizeof line, "%s: %s\n", program_invocation_short_name, what);
    if (write(file, line, size < (int)sizeof line ? size : (int)sizeof line - 1) < 0) abort();
    close(file);
    errno = error;
}

static int is_own_name(const char *name) {
    char own[256] = "", address[16];
    gethostname(own, sizeof own - 1);
    return !name || !*name || !strcmp(name, "localhost") || !strcmp(name, own) ||
           inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static int is_foreign(const struct sockaddr *to) {
    char name[INET6_ADDRSTRLEN] = "";
    if (!to) return 0;
    if (to->sa_family == AF_INET) {
        const struct in_addr *address = &((const struct sockaddr_in *)to)->sin_addr;
        if (ntohl(address->s_addr) >> 24 == 127 || address->s_addr == 0) return 0;
        inet_ntop(AF_INET, address, name, sizeof name);
    } else if (to->sa_family == AF_INET6) {
        const struct in6_addr *address = &((const struct sockaddr_in6 *)to)->sin6_addr;
        if (IN6_IS_ADDR_LOOPBACK(address) || IN6_IS_ADDR_UNSPECIFIED(address)) return 0;
        if (IN6_IS_ADDR_V4MAPPED(address) && address->s6_addr[12] == 127) return 0;
        inet_ntop(AF_INET6, address, name, sizeof name);
    } else {
        return 0;
    }
    report(name);
    errno = ENETUNREACH;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    if (is_own_name(name)) return NEXT(getaddrinfo)(name, service, hints, found);
    report(name);
    return EAI_NONAME;
}

int connect(int socket, const struct sockaddr *to, socklen_t size) {
    return is_foreign(to) ? -1 : NEXT(connect)(socket, to, size);
}
ssize_t sendto(int socket, const void *data, size_t count, int flags, const struct sockaddr *to, socklen_t size) {
    return is_foreign(to) ? -1 : NEXT(sendto)(socket, data, count, flags, to, size);
}
"""
# By these libraries find out that tests run, and report nothing; or that they are told not to.
_HIDING = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS")
_SWITCHES = ("ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY")
_PLACES = ("PPNLP_HOME", "PADDLE_RANKER_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR")


class Lookups:
    """Set the environment of processes that the test starts from now on, of a user whose HOME is not a folder.

    Attribute: `home`, the temporary folder that commands have instead.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or ""
        if not compiler:
            pytest.skip("needs a C compiler, cc, for what sees the look-ups of compiled libraries: apt-get install gcc")
        library, source, self._log = (folder / name for name in ("seen.so", "seen.c", "seen.txt"))
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        temporary = folder / "temporary"
        temporary.mkdir()
        self.home = temporary / f"paddle-ranker-home-{os.geteuid()}"
        for name in (*_HIDING, *_SWITCHES, *_PLACES):
            patch.delenv(name, raising=False)
        for name, value in (("LD_PRELOAD", library), ("LOOKUPS", self._log), ("TMPDIR", temporary)):
            patch.setenv(name, str(value))
        patch.setenv("HOME", os.devnull)

    def require_none(self) -> None:
        """Fail where a process looked up or connected to anything beyond this machine, or left an id in HOME."""
        seen = self._log.read_text() if self._log.exists() else ""
        assert not seen, f"looked up, or connected to:\n{seen}"
        files = [path.relative_to(self.home).as_posix() for path in self.home.rglob("*") if path.is_file()]
        known = (".cache/paddle/", ".cache/matplotlib/", ".config/matplotlib/", ".paddlenlp/", ".visualdl/")
        others = [path for path in files if not path.startswith(known)]
        assert not others, f"left in HOME: {others}"


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookups]:
    """What the processes that the test starts look up."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is too deep for a server's socket
        yield Lookups(Path(folder), monkeypatch)
