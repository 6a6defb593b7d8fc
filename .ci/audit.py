"""Known vulnerabilities of the installed packages, by pip-audit and the OSV database: says what it found, and never fails the build.

Where the database cannot be reached it says so and goes on, within seconds.
"""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HOST = "api.osv.dev"
SECONDS = 120


def main() -> None:
    try:
        socket.create_connection((HOST, 443), timeout=5).close()
    except OSError as error:
        print(f"not asked: {HOST} cannot be reached ({error})")
        return
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        frozen = ["uv", "pip", "freeze", "--exclude-editable", "--python", sys.executable]
        listed.write_text(subprocess.run(frozen, capture_output=True, text=True, check=True).stdout, encoding="utf-8")
        audit = ["uvx", "pip-audit", "--vulnerability-service", "osv", "--no-deps", "--disable-pip", "--timeout", "15", "-r", str(listed)]
        try:
            done = subprocess.run(audit, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"not asked: {error}")
            return
    print("nothing known" if done.returncode == 0 else "known vulnerabilities, or the question failed: see above; the build goes on")


if __name__ == "__main__":
    main()
