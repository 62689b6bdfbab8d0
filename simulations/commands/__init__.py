"""The command lines of feddp, one file a group."""
