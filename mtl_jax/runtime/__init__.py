"""The machine that a run works on: devices, processes, worker processes, files that survive a crash, downloads."""
