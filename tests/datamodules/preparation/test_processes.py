import os
import subprocess
import sys
import time

PROGRAM = """
import os, time
from datamodules.preparation import processes
processes._PRELOADED.clear()
if __name__ == "__main__":
    pool = processes.process_pool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_workers_of_a_killed_run_do_not_stay_behind_and_hold_memory(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment)
    worker = int(process.stdout.readline())
    os.kill(worker, 0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and is_running(worker):
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = os.path.join("/proc", str(pid), "stat")
    return not os.path.exists(status) or open(status).read().rsplit(")", 1)[1].split()[0] != "Z"
