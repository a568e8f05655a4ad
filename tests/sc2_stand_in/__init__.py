"""NOT StarCraft II: a small stand-in for the game's binary, for tests on machines that do not have it.

pysc2 finds it under ``SC2PATH``, starts it and talks to it as to the game: the StarCraft II API, protobuf
messages over a websocket. Behind that is one battle, three marines against three, that is only roughly the
game's (``battle``): units do not collide, everything is visible, the computer's marines walk to the nearest
marine and shoot. What it shows is that the software around the game works. Win rates against it say nothing
about SMAC.

Written from the API's public protobuf definitions; no code of the game, of pysc2 or of smac is in it.
"""
