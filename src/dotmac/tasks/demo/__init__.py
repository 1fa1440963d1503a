"""The demonstration behind `dotmac-tasks demo`: three sagas, shown while they happen."""
