"""The stand-in as a process: takes the command line that pysc2 gives the game's binary."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sc2_stand_in.installation import Fault, note_launch
from sc2_stand_in.websocket_server import Connection, listen


def main() -> None:
    parser = argparse.ArgumentParser(prefix_chars="-", allow_abbrev=False)
    parser.add_argument("-listen", required=True)
    parser.add_argument("-port", type=int, required=True)
    parser.add_argument("-dataDir", type=Path, required=True)
    options, _ = parser.parse_known_args()
    # pysc2 tries once a second: listening comes before the slow import of the messages.
    server = listen(options.listen, options.port)
    note_launch(options.dataDir)
    from s2clientprotocol import sc2api_pb2

    from sc2_stand_in.game import Game

    game = Game(first_tag=os.getpid() << 20)
    fault = Fault(options.dataDir)
    connection = Connection(server)
    # It ends with its client, so that a test that is killed leaves no process behind.
    for message in connection.messages():
        answer = game.answer(message)
        if game.status == sc2api_pb2.quit:
            break
        fault.before_answer()
        connection.send(answer)


main()
