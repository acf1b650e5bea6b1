\* NEVER MACHINE-CHECKED: no TLC was to be had where this was written. Its syntax was parsed, its swap and
\* lease rules are checked in swap_lease.pml by spin, and the code itself by the search in ../tests/search.
---------------------------- MODULE Replication ----------------------------
\* The protocol of node/paxos: a contiguous log, ballots, suffix adoption, one swap of members with a joint
\* quorum, and leases that rest on support of members bound to a leader.
\*
\* Names follow the code: promised, log, bound; Prepare and Promise are acceptor.rs, Win is campaign.rs,
\* Propose, Accept and Choose are leader.rs, MayRead is lease.rs, ProposeSwap is membership.rs.
\* Messages are a set that only grows: they are lost by never being received, repeated and reordered.
\* Everything an action writes is durable when it ends; that records precede messages is the search's to check.

EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS Founders, Joiner, Removed, Ballots, Values, Slots, Noop, Swap, None

Members == Founders \union {Joiner}
Old == Founders
New == (Founders \ {Removed}) \union {Joiner}
Majorities(set) == {q \in SUBSET set : 2 * Cardinality(q) > Cardinality(set)}

\* An entry's identity is the log up to it: what the chained checksum stands for.
Entries == Values \union {Noop, Swap}

VARIABLES
    promised,   \* greatest ballot promised, by member
    log,        \* sequence of [value, ballot], by member
    bound,      \* the ballot whose leader the member is bound to, or 0
    lapsed,     \* pairs <<member, ballot>> whose support has lapsed or was set free
    leader,     \* ballots won: None, or [member, opened, first]
    stopped,    \* ballots whose leader has stopped for ever
    chosen,     \* by ballot, up to where its leader has chosen its log
    messages

vars == <<promised, log, bound, lapsed, leader, stopped, chosen, messages>>

Init ==
    /\ promised = [m \in Members |-> 0]
    /\ log = [m \in Members |-> <<>>]
    /\ bound = [m \in Members |-> 0]
    /\ lapsed = {}
    /\ leader = [b \in Ballots |-> None]
    /\ stopped = {}
    /\ chosen = [b \in Ballots |-> 0]
    /\ messages = {}

TypeOK ==
    /\ promised \in [Members -> Ballots \union {0}]
    /\ bound \in [Members -> Ballots \union {0}]
    /\ stopped \subseteq Ballots
    /\ \A m \in Members : Len(log[m]) <= Slots

Value(l, s) == l[s].value
Same(l, k, s) == s <= Len(l) /\ s <= Len(k) /\ \A i \in 1..s : Value(l, i) = Value(k, i)
SwapAt(l) == {s \in 1..Len(l) : Value(l, s) = Swap}
HasSwap(l) == SwapAt(l) # {}
\* An entry behind a swap proves that the swap is chosen.
SwapPending(l) == HasSwap(l) /\ Value(l, Len(l)) = Swap

Send(set) == messages' = messages \union set

\* The members that lead under ballots which have not stopped: they promise nobody while they hold a lease.
Led(m) == {b \in Ballots \ stopped : leader[b] # None /\ leader[b].member = m}

\* A member that is bound and supports its leader promises nobody else.
Free(m) == bound[m] = 0 \/ <<m, bound[m]>> \in lapsed

Prepare(m, b) ==
    /\ b > promised[m] /\ Free(m)
    /\ \A x \in messages : ~(x.type = "prepare" /\ x.ballot = b)  \* a ballot is one member's
    /\ promised' = [promised EXCEPT ![m] = b]
    /\ stopped' = stopped \union Led(m)
    /\ Send({[type |-> "prepare", ballot |-> b, from |-> m],
             [type |-> "promise", ballot |-> b, from |-> m, log |-> log[m]]})
    /\ UNCHANGED <<log, bound, lapsed, leader, chosen>>

Promise(m, b) ==
    /\ b > promised[m] /\ Free(m)
    /\ m # Joiner \/ log[m] # <<>>
    /\ \E x \in messages : x.type = "prepare" /\ x.ballot = b /\ x.from # m
    /\ promised' = [promised EXCEPT ![m] = b]
    /\ stopped' = stopped \union Led(m)
    /\ Send({[type |-> "promise", ballot |-> b, from |-> m, log |-> log[m]]})
    /\ UNCHANGED <<log, bound, lapsed, leader, chosen>>

\* Slot by slot the entry of the greatest ballot; logs that do not go on from it are left behind.
RECURSIVE Adopt(_, _)
Adopt(logs, prefix) ==
    LET s == Len(prefix) + 1
        going == {l \in logs : Len(l) >= s /\ Same(l, Append(prefix, l[s]), s)}
        best == CHOOSE l \in going : \A k \in going : l[s].ballot >= k[s].ballot
    IN IF going = {} THEN prefix ELSE Adopt(going, Append(prefix, best[s]))

\* The promises in `q` win ballot b: by majorities of the configurations that the adopted log tells of.
Win(m, b, q) ==
    LET promises == {x \in messages : x.type = "promise" /\ x.ballot = b /\ x.from \in q}
        adopted == Adopt({x.log : x \in promises}, <<>>)
        suffices ==
            IF ~HasSwap(adopted) THEN q \in Majorities(Old)
            ELSE IF SwapPending(adopted)
                 THEN (q \intersect Old) \in Majorities(Old) /\ (q \intersect New) \in Majorities(New)
                 ELSE (q \intersect New) \in Majorities(New)
        renewed == [i \in 1..Len(adopted) |-> [value |-> Value(adopted, i), ballot |-> b]]
    IN /\ leader[b] = None /\ promised[m] = b
       /\ m # Joiner
       /\ q = {x.from : x \in promises} /\ suffices
       /\ \E x \in messages : x.type = "prepare" /\ x.ballot = b /\ x.from = m
       /\ leader' = [leader EXCEPT ![b] = [member |-> m, opened |-> 0]]
       /\ log' = [log EXCEPT ![m] = renewed]
       /\ UNCHANGED <<promised, bound, lapsed, stopped, chosen, messages>>

Leads(m, b) == leader[b] # None /\ leader[b].member = m /\ promised[m] = b /\ b \notin stopped

\* Nothing is proposed past a swap that is not chosen; the first entry of a leader is a no-op.
Propose(m, b, v) ==
    LET l == log[m] IN
    /\ Leads(m, b) /\ Len(l) < Slots
    /\ SwapPending(l) => chosen[b] = Len(l)
    /\ (v = Noop) <=> (leader[b].opened = 0)
    /\ log' = [log EXCEPT ![m] = Append(l, [value |-> v, ballot |-> b])]
    /\ leader' = IF v = Noop THEN [leader EXCEPT ![b].opened = Len(l) + 1] ELSE leader
    /\ UNCHANGED <<promised, bound, lapsed, stopped, chosen, messages>>

\* The joiner must hold everything chosen before the swap is proposed.
ProposeSwap(m, b) ==
    LET l == log[m] IN
    /\ Leads(m, b) /\ m # Removed /\ Len(l) < Slots /\ ~HasSwap(l)
    /\ leader[b].opened # 0 /\ chosen[b] >= leader[b].opened
    /\ Same(log[Joiner], l, chosen[b])
    /\ log' = [log EXCEPT ![m] = Append(l, [value |-> Swap, ballot |-> b])]
    /\ UNCHANGED <<promised, bound, lapsed, leader, stopped, chosen, messages>>

\* A member takes one more entry than it shares with the leader, or just binds itself. What contradicts the
\* leader's log goes, with all behind it; what does not stays, under its old ballot.
Accept(m, b, n) ==
    LET m0 == leader[b].member
        from == log[m0]
        own == log[m]
        tail == IF Same(own, from, n) THEN SubSeq(own, n + 1, Len(own)) ELSE <<>>
    IN /\ leader[b] # None /\ Leads(m0, b) /\ b >= promised[m]
       /\ n <= Len(from) /\ (n = 0 \/ Same(own, from, n - 1))
       /\ promised' = [promised EXCEPT ![m] = b]
       /\ stopped' = stopped \union (Led(m) \ {b})
       /\ log' = [log EXCEPT ![m] = SubSeq(from, 1, n) \o tail]
       /\ bound' = IF <<m, b>> \in lapsed THEN bound ELSE [bound EXCEPT ![m] = b]
       /\ Send({[type |-> "accepted", ballot |-> b, from |-> m, upto |-> n]})
       /\ UNCHANGED <<lapsed, leader, chosen>>

Has(m0, b, n) == {m \in Members : \E x \in messages :
    x.type = "accepted" /\ x.ballot = b /\ x.from = m /\ x.upto >= n} \union {m0}

Choose(m, b, n) ==
    LET l == log[m]
        votes == Has(m, b, n)
        at == IF HasSwap(l) THEN CHOOSE s \in SwapAt(l) : TRUE ELSE Slots + 1
        old == (votes \intersect Old) \in Majorities(Old)
        new == (votes \intersect New) \in Majorities(New)
    IN /\ Leads(m, b) /\ n \in (chosen[b] + 1)..Len(l)
       /\ n < at => old
       /\ n = at => old /\ new
       /\ n > at => new
       /\ chosen' = [chosen EXCEPT ![b] = n]
       /\ UNCHANGED <<promised, log, bound, lapsed, leader, stopped, messages>>

\* Support of a member for the leader of a ballot ends, for ever: its next stretch is another epoch. The
\* leader's count of it has ended before.
Lapse(m, b) ==
    /\ lapsed' = lapsed \union {<<m, b>>}
    /\ UNCHANGED <<promised, log, bound, leader, stopped, chosen, messages>>

\* A leader stops, and sets all members free.
Relinquish(m, b) ==
    /\ Leads(m, b)
    /\ stopped' = stopped \union {b}
    /\ lapsed' = lapsed \union {<<x, b>> : x \in Members}
    /\ UNCHANGED <<promised, log, bound, leader, chosen, messages>>

Next ==
    \/ \E m \in Founders, b \in Ballots : Prepare(m, b) \/ ProposeSwap(m, b) \/ Relinquish(m, b)
    \/ \E m \in Members, b \in Ballots : Promise(m, b) \/ Lapse(m, b)
    \/ \E m \in Founders, b \in Ballots, q \in SUBSET Members : Win(m, b, q)
    \/ \E m \in Founders, b \in Ballots, v \in Values \union {Noop} : Propose(m, b, v)
    \/ \E m \in Members, b \in Ballots, n \in 0..Slots : leader[b] # None /\ Accept(m, b, n)
    \/ \E m \in Founders, b \in Ballots, n \in 1..Slots : Choose(m, b, n)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------

ChosenBy(b) == SubSeq(log[leader[b].member], 1, chosen[b])

\* What one leader has chosen every leader with a greater ballot has in its log. (A deposed leader's own log
\* may be replaced behind what it chose, never before.)
Agreement ==
    \A b, c \in Ballots :
        (b <= c /\ leader[b] # None /\ leader[c] # None) =>
            Same(log[leader[b].member], log[leader[c].member], chosen[b])
            \/ promised[leader[c].member] > c

Supporters(b) == {m \in Members : bound[m] = b /\ <<m, b>> \notin lapsed} \union {leader[b].member}

MayRead(b) ==
    LET m == leader[b].member
        l == log[m]
        old == (Supporters(b) \intersect Old) \in Majorities(Old)
        new == (Supporters(b) \intersect New) \in Majorities(New)
    IN /\ leader[b] # None /\ Leads(m, b)
       /\ leader[b].opened # 0 /\ chosen[b] >= leader[b].opened
       /\ ~HasSwap(l) => old
       /\ HasSwap(l) => new
       /\ (HasSwap(l) /\ \E s \in SwapAt(l) : s > chosen[b]) => old

LeaseExclusion == \A b, c \in Ballots : (MayRead(b) /\ MayRead(c)) => b = c

\* A chosen swap, with everything before it, is on a majority of the old and of the new members.
PrefixOnSwap ==
    \A b \in Ballots : leader[b] # None =>
        LET l == log[leader[b].member] IN
        \A s \in SwapAt(l) : s <= chosen[b] =>
            LET holders == {m \in Members : Same(log[m], l, s)}
            IN /\ (holders \intersect Old) \in Majorities(Old)
               /\ (holders \intersect New) \in Majorities(New)
=============================================================================
