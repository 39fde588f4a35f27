"""What the meeting place knows of its runs, and what it answers. Pure: time is an argument.

Each node has one connection to it, and says HELLO first. A run of a fixed list of nodes begins when
all of them are there; an open swarm when its first node is. Who comes later, or comes back, is told
who lives and what the run's settings are, takes a model from one of these nodes, and says that it
is `live`. All live nodes hear who comes and who goes.

Nodes meet in rooms: each says a value, and is given everybody's once all who must be there are.

Nothing here is needed to train. If it is lost, nodes that live fill the next one: their HELLO says
what they know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from swarmsgd.train.meet.session import Client, Member, Room, Said, Session

Out = list[tuple[Client, Said]]
"""Messages to send, and to whom."""

AWAY_S = 1.0
"""A node whose connection ended and that does not come back within this time is gone."""
SILENT_S = 30.0
"""A node that has not beaten for so long is left out until it does."""
TAKEN_S = 5.0
"""Who comes with the number of a node that has beaten within this time is refused."""
REFILL_S = 3.0
"""A meeting place that has just begun waits so long for nodes of an open swarm that lost theirs."""
_LEFT, _LOST, _SILENT = "left", "lost", "silent"


class Register:
    """All runs that meet here. `draw` makes names that nobody guesses."""

    def __init__(self, draw: Callable[[], str], *, now: float = 0.0, refill_s: float = 0.0) -> None:
        self.sessions: dict[str, Session] = {}
        self.calls = 0
        """Messages that nodes sent."""
        self._draw = draw
        self._open_from = now + refill_s
        self._clients: dict[Client, tuple[str, int]] = {}

    # What happens.

    def said(self, client: Client, message: Said, now: float) -> Out:
        """A message of a node. What makes no sense is let fall."""
        self.calls += 1
        out: Out = []
        if message.get("do") == "hello":
            self._hello(client, message, now, out)
            return out
        name, id = self._clients.get(client, ("", -1))
        session = self.sessions.get(name)
        member = session.members.get(id) if session else None
        if session is None or member is None or member.client != client:
            return [(client, {"n": message.get("n", 0), "unknown": True})]
        member.heard = now
        if member.silent:
            member.silent = False
            self._tell(session, "joined", [member], out)
        match message.get("do"):
            case "gather":
                self._gather(session, member, message, out)
            case "arriving":
                news = [["arriving", member.id, member.incarnation, message["endpoint"]]]
                about = {m.id for m in session.members.values() if m.endpoint or not m.live}
                _to_all(session, {"news": news}, out, but=about)
            case "live":
                self._live(session, member, message, out)
            case "absent":
                room = session.rooms.get(message["room"])
                absent = sorted(session.wanted(room) - room.values.keys()) if room else []
                out.append((client, {"n": message["n"], "absent": absent}))
            case "members":
                out.append((client, {"all": [m.entry() for m in session.live()]}))
            case "left":
                self._remove(session, member, _LEFT, out)
                out.append((client, {"n": message["n"]}))
            case _:
                pass
        return out

    def ended(self, client: Client, now: float) -> Out:
        """A connection ended."""
        out: Out = []
        name, id = self._clients.pop(client, ("", -1))
        session = self.sessions.get(name)
        if session is None:
            return out
        session.arrivals = [each for each in session.arrivals if each[0] != client]
        member = session.members.get(id)
        if member is not None and member.client == client:
            if session.begun and member.live:
                member.away_since = now
            else:
                self._remove(session, member, _LOST, out)
        return out

    def died(self, rank: int) -> Out:
        """The process of node `rank` of the fixed lists is known to have ended."""
        out: Out = []
        for session in list(self.sessions.values()):
            member = session.members.get(rank)
            if session.size is None:
                continue
            if member is not None:
                self._remove(session, member, _LOST, out)
            elif not session.begun and rank < session.size:
                session.ended.add(rank)
                self._look(session, out)
        return out

    def tick(self, now: float) -> Out:
        """Time has passed; to be called a few times a second."""
        out: Out = []
        for session in list(self.sessions.values()):
            for member in list(session.members.values()):
                if member.away_since is not None and now - member.away_since > AWAY_S:
                    self._remove(session, member, _LOST, out)
                elif member.live and not member.silent and now - member.heard > SILENT_S:
                    member.silent = True
                    self._tell_gone(session, member, _SILENT, out)
                    self._look(session, out)
            self._found(session, now, out)
        return out

    def stood_still(self, seconds: float, now: float) -> None:
        """Nothing was read for so long, whatever nodes said: that is no silence of theirs."""
        for session in self.sessions.values():
            for member in session.members.values():
                member.heard = min(now, member.heard + seconds)
                if member.away_since is not None:
                    member.away_since = min(now, member.away_since + seconds)

    # Coming.

    def _hello(self, client: Client, hello: Said, now: float, out: Out) -> None:
        name, size = str(hello["session"]), hello["size"]
        session = self.sessions.get(name)
        if session is None:
            session = self.sessions[name] = Session(self._draw(), size)
        if session.size != size:
            has = "open" if session.size is None else f"of {session.size} nodes"
            says = "open" if size is None else f"of {size}"
            _refuse(out, client, f"the run that meets here is {has}, this node says {says}")
            return
        if hello.get("back"):
            self._back(session, name, client, hello, now, out)
        elif size is None and not session.begun:
            session.arrivals.append((client, hello))
            self._clients[client] = (name, -1)
            self._found(session, now, out)
            if any(each[0] == client for each in session.arrivals):
                what = "nodes that know it"
                if session.founder is not None:
                    what = "its first node"
                elif not hello.get("listens", True) and now >= self._open_from:
                    what = "a node that listens"
                out.append((client, {"waits": f"waiting for {what} to begin the swarm"}))
        elif session.left and (
            hello["id"] not in session.left or (hello.get("again") and not session.members)
        ):
            gone = ", ".join(map(str, sorted(session.left)))
            _refuse(out, client, f"the run is over: node {gone} left it in order")
        else:
            session.left.clear()  # one of them begins the next run
            self._arrive(session, name, client, hello, now, out)

    def _arrive(
        self, session: Session, name: str, client: Client, hello: Said, now: float, out: Out
    ) -> None:
        """A process that was not in the run before."""
        id = hello["id"]
        if session.size is None:
            id, session.next_id = session.next_id, session.next_id + 1
        former = session.members.get(id)
        if former is not None:
            if former.away_since is None and now - former.heard < TAKEN_S:
                _refuse(out, client, f"there is a node {id} in this run already")
                return
            self._remove(session, former, _LOST, out)
        if id in session.ended:
            session.ended.clear()  # who ended before the run began is started again
            session.to_blame = []
        incarnation = session.incarnations[id] = session.incarnations.get(id, -1) + 1
        session.members[id] = Member(id, incarnation, client, now, means=session.means)
        self._clients[client] = (name, id)
        out.append((client, self._welcome(session, session.members[id])))

    def _back(
        self, session: Session, name: str, client: Client, hello: Said, now: float, out: Out
    ) -> None:
        """A node that lives, whose connection or whose meeting place was lost."""
        id, incarnation = hello["id"], hello["incarnation"]
        if session.begun and session.token != hello["token"]:
            _refuse(out, client, "another swarm has begun here meanwhile")
            return
        if incarnation < session.incarnations.get(id, 0):
            _refuse(out, client, f"node {id} was started again meanwhile")
            return
        if not session.begun:
            session.begun, session.token, session.facts = True, hello["token"], hello["facts"]
        session.next_id = max(session.next_id, hello["next_id"])
        session.means = max(session.means, hello["means"])
        session.incarnations[id] = incarnation
        known = session.members.get(id)
        member = Member(
            id, incarnation, client, now, hello["endpoint"], live=True, means=hello["means"]
        )
        session.members[id] = member
        self._clients[client] = (name, id)
        out.append((client, self._welcome(session, member)))
        if known is None or known.silent:
            self._tell(session, "joined", [member], out)
        self._begun_without(session, now, out)

    def _welcome(self, session: Session, member: Member) -> Said:
        return {
            "welcome": member.id,
            "incarnation": member.incarnation,
            "token": session.token,
            "begun": session.begun,
            "facts": session.facts,
            "next_id": session.next_id,
            "means": member.means,
            "members": [m.entry() for m in session.live()],
        }

    def _begun_without(self, session: Session, now: float, out: Out) -> None:
        """The run has begun: who waits to begin it comes to one that goes on."""
        for client, hello in session.arrivals:
            self._arrive(session, self._clients[client][0], client, hello, now, out)
        session.arrivals.clear()
        for room in session.rooms.values():
            for id, (client, _) in list(room.asked.items()):
                member = session.members.get(id)
                if member is not None and not member.live:
                    del room.values[id], room.asked[id]
                    member.means = session.means
                    out.append((client, self._welcome(session, member)))

    def _found(self, session: Session, now: float, out: Out) -> None:
        """Let the first who came and listens begin an open swarm: others can take its model."""
        ready = session.size is None and not session.begun and now >= self._open_from
        first = next((each for each in session.arrivals if each[1].get("listens", True)), None)
        if ready and session.founder is None and first is not None:
            session.arrivals.remove(first)
            client, hello = first
            session.founder = session.next_id
            self._arrive(session, self._clients[client][0], client, hello, now, out)

    def _live(self, session: Session, member: Member, message: Said, out: Out) -> None:
        member.endpoint, member.live = message["endpoint"], True
        member.means = session.means
        if not session.begun:
            session.begun, session.facts = True, message["facts"]
        members = [m.entry() for m in session.live()]
        out.append((member.client, {"n": message["n"], "members": members}))
        self._tell(session, "joined", [member], out)
        self._begun_without(session, member.heard, out)

    # Meeting.

    def _gather(self, session: Session, member: Member, message: Said, out: Out) -> None:
        name, n = message["room"], message["n"]
        if message["who"] == "live" and member.means < session.means:
            member.means += 1
            missed = {"n": n, "missed": session.mean_of, "means": member.means}
            out.append((member.client, missed))
            return
        room = session.rooms.get(name)
        if room is None:
            room = session.rooms[name] = Room(message["who"], bool(message.get("begins")))
        room.values[member.id] = message["value"]
        room.asked[member.id] = (member.client, n)
        self._look(session, out)

    def _look(self, session: Session, out: Out) -> None:
        """Whether somebody has waited long enough."""
        for name, room in list(session.rooms.items()):
            if room.who == "all" and session.ended:
                self._fail(session, out)
                return
            if room.asked and session.wanted(room) <= room.values.keys():
                del session.rooms[name]
                self._met(session, room, out)

    def _met(self, session: Session, room: Room, out: Out) -> None:
        session.serial += 1
        here = [id for id in sorted(room.values) if id in session.members]
        values = {str(id): room.values[id] for id in here}
        if room.begins:
            session.begun = True
            session.left.clear()
            session.facts = room.values[here[0]]["facts"]
            for id in here:
                session.members[id].endpoint = room.values[id]["endpoint"]
                session.members[id].live = True
        if room.who == "live":
            session.means, session.mean_of = session.means + 1, here
            for id in here:
                session.members[id].means = session.means
        for id in here:
            client, n = room.asked[id]
            means = session.members[id].means
            out.append(
                (client, {"n": n, "values": values, "serial": session.serial, "means": means})
            )

    def _fail(self, session: Session, out: Out) -> None:
        """A node of a fixed list ended before the run began: all that are there must know."""
        session.to_blame = session.to_blame or sorted(session.ended)
        for room in session.rooms.values():
            for client, n in room.asked.values():
                out.append((client, {"n": n, "ended": session.to_blame}))
        waiting = {id for room in session.rooms.values() for id in room.asked}
        session.rooms.clear()
        for id in waiting:  # their attempt is over, whenever their connections end
            member = session.members.pop(id, None)
            if member is not None:
                self._clients.pop(member.client, None)
                session.ended.add(id)

    # Going.

    def _remove(self, session: Session, member: Member, how: str, out: Out) -> None:
        if session.members.get(member.id) is not member:
            return
        del session.members[member.id]
        self._clients.pop(member.client, None)
        for room in session.rooms.values():
            room.values.pop(member.id, None)
            room.asked.pop(member.id, None)
        if session.founder == member.id and not session.begun:
            session.founder = None
        if not session.begun and session.size is not None:
            session.ended.add(member.id)
        if session.begun and how == _LEFT and session.size is not None:
            session.left.add(member.id)
        if session.begun and not any(m.live for m in session.members.values()):
            self._over(session, out)
        if member.live or not session.begun:
            self._tell_gone(session, member, how, out)
        self._look(session, out)

    def _over(self, session: Session, out: Out) -> None:
        """All have gone: who comes next begins anew. Who came and had no model yet is told."""
        for member in list(session.members.values()):
            del session.members[member.id]
            self._clients.pop(member.client, None)
            _refuse(out, member.client, "the run ended before this node had a model of it")
        session.begun, session.facts, session.founder = False, None, None
        session.token = self._draw()
        session.rooms.clear()
        session.ended.clear()
        session.to_blame = []
        session.means, session.mean_of = 0, []

    # Telling.

    def _tell(self, session: Session, what: str, members: Iterable[Member], out: Out) -> None:
        members = list(members)
        news = [[what, *m.entry()] for m in members]
        about = {m.id for m in members}
        _to_all(session, {"news": news}, out, but=about)

    def _tell_gone(self, session: Session, member: Member, how: str, out: Out) -> None:
        _to_all(
            session,
            {"news": [["gone", member.id, member.incarnation, how]]},
            out,
            but={member.id},
        )


def _to_all(session: Session, message: Said, out: Out, but: Collection[int]) -> None:
    for member in session.members.values():
        if member.id not in but and member.away_since is None:
            out.append((member.client, message))


def _refuse(out: Out, client: Client, why: str) -> None:
    out.append((client, {"refused": why}))
