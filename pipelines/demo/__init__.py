"""The demo: real pictures with their real, dirty texts, and a small loopback web that serves and misserves them.

`pictures.prepare(folder)` draws the pictures out of installed packages, `server.DemoServer(folder)` serves them on
127.0.0.1 and writes the list of URLs that the recipe `demo-images` starts from. Nothing leaves the machine.
"""
