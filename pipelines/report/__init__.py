"""The corpus report: one self-contained page that shows what a run kept, what it dropped, and why."""
