"""The machine: scanners read it, the executor changes it.

Scanners (`scan`) cannot reach the executor. One module starts processes (`process`), one
speaks D-Bus (`bus`), one writes files (`files`).
"""
