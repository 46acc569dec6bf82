"""Writers: they turn what the engine tells into what a person or a tool reads."""
