"""Schedulers that run the nightly checkpoint: one file each, one interface, one conformance suite.

    interface      what every scheduler answers, and what `hooks` asks of it
    machine        the programs and folders of the machine that a scheduler works with
    marks          whose a file is: our mark with its digest
    owned_files    files that carry the mark: placed, moved aside, removed
    schedules      install, uninstall, status: the rules that hold for every scheduler
    systemd, cron, launchd, taskscheduler

No note is kept of what was installed: the answer is always read from the scheduler and its files. (Since when
nights are to be expected is another question; the store has the answer, see `checkpoint.nights`.)
"""
