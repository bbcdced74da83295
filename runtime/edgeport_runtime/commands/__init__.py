"""The command `run-model`, and what it prints or writes. What a program could use belongs to another folder."""
