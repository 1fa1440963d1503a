"""Where asyncio programs and threads meet the runtime: its thread, their handlers, and the blocking façade."""
