"""The commands of feddp, one file per group."""
