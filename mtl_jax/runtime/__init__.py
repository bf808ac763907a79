"""Access to the machine of a run: devices, processes, worker processes, files that survive a crash, and downloads."""
