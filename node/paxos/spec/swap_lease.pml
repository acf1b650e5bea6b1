/* Swap and lease rules of node/paxos, small enough to be checked exhaustively by spin.
 *
 * Members 0, 1, 2 found the group; member 3 is swapped in for member 2. Slot 1 is the swap, slot 2 the
 * first write past it; what stands in slot 2 is named by the leader that proposed it. The candidates are
 * member 0 with ballot 1 and member 1 or 2 with ballot 2 or 3; each stands once. Promises and accepts are atomic
 * exchanges with one member, which may not happen (loss) and happen in any order (reordering).
 *
 * A lease is a set of members bound to a leader. "Lapse" ends a member's support, once per member: after
 * it the member is free, and the leader does not count it any more (the count of the leader ends first).
 *
 * Checked: Agreement (slot 2 is chosen with one value), LeaseExclusion (no two leaders hold a lease),
 * PrefixOnSwap (a swap chosen is on a majority of the old and of the new members).
 * Each macro of the list below is a mistake; spin finds each (`cargo xtask long search` runs them all):
 *   OLD_QUORUM_ONLY NEW_QUORUM_ONLY IGNORE_NEWER BOUND_PROMISES UNBOUND_COUNTS
 */

#define MEMBERS 4
#define NEVER 0

/* The members of the old and of the new configuration, as bits. */
#define OLD 7   /* 0 1 2 */
#define NEW 11  /* 0 1 3 */
#define MANY(bits, set) ((((bits) & (set)) & 1) + ((((bits) & (set)) >> 1) & 1) + \
                         ((((bits) & (set)) >> 2) & 1) + ((((bits) & (set)) >> 3) & 1) >= 2)

/* Whether a member may promise: it is bound to nobody, or its support has lapsed. */
#ifdef BOUND_PROMISES
#define FREE(m) true
#else
#define FREE(m) (bound[m] == NEVER || lapsed[m])
#endif

#ifdef NEW_QUORUM_ONLY
#define SWAPPED(bits) MANY(bits, NEW)
#else
#ifdef OLD_QUORUM_ONLY
#define SWAPPED(bits) MANY(bits, OLD)
#else
#define SWAPPED(bits) (MANY(bits, OLD) && MANY(bits, NEW))
#endif
#endif

/* Who must have promised, by what the promises told. An entry behind the swap proves the swap chosen:
 * then the new members alone. */
#ifdef IGNORE_NEWER
#define WON(won, swap, val) MANY(won, OLD)
#else
#define WON(won, swap, val) ((val != 0 && MANY(won, NEW)) || (val == 0 && MANY(won, OLD) && (swap == 0 || MANY(won, NEW))))
#endif

byte promised[MEMBERS];      /* greatest ballot promised */
byte swap_ballot[MEMBERS];   /* ballot under which the swap in slot 1 was accepted; 0 never */
byte value_ballot[MEMBERS];  /* ballot under which slot 2 was accepted */
byte value[MEMBERS];         /* what was accepted there: the proposing ballot */
byte bound[MEMBERS];         /* the ballot whose leader the member is bound to */
bool lapsed[MEMBERS];        /* the member's one lapse has happened */

byte swap_votes[4];          /* by ballot: members that accepted the swap, as bits */
byte value_votes[4];         /* by ballot: members that accepted slot 2 */
byte bound_to[4];            /* by ballot: members whose support its leader counts */
byte leads[4];               /* by ballot: won phase 1 and has not been deposed by its own promise */
byte chosen_value;           /* what was chosen in slot 2; 0 nothing yet */
bool swap_chosen;

/* A leader holds the lease while a majority of its configuration is bound to it: of the old one before it
 * has a swap, of both while the swap is under way, of the new one when it knows the swap chosen. */
#define HOLDS(b) (leads[b] && (MANY(bound_to[b], OLD) || knows_chosen[b]) && (MANY(bound_to[b], NEW) || !has_swap[b]))

bool has_swap[4];
bool knows_chosen[4];

proctype Candidate(byte me; byte b) {
    byte won;            /* members that promised */
    byte got_value;      /* what must be adopted in slot 2 */
    byte got_ballot;
    byte got_swap;
    byte m;

    /* Phase 1: own promise first. */
    atomic {
        if
        :: promised[me] < b && FREE(me) -> promised[me] = b
        :: else -> goto done
        fi;
        won = 1 << me;
        got_value = value[me]; got_ballot = value_ballot[me]; got_swap = swap_ballot[me];
        /* A leader that promises to itself anew leads no more under its old ballot. */
        leads[me + 1] = false;
        bound[me] = NEVER
    }

    do
    :: atomic {
        /* One member promises. */
        select(m : 0 .. 3);
        if
        :: m != me && promised[m] < b && FREE(m) && (m < 3 || swap_ballot[3] != 0) ->
            promised[m] = b;
            won = won | (1 << m);
            /* A member that leads and promises leads no more. */
            if
            :: m < 3 -> leads[m + 1] = false
            :: else -> skip
            fi;
            if
            :: value_ballot[m] > got_ballot -> got_ballot = value_ballot[m]; got_value = value[m]
            :: else -> skip
            fi;
            if
            :: swap_ballot[m] > got_swap -> got_swap = swap_ballot[m]
            :: else -> skip
            fi
        :: else -> skip
        fi;
        m = 0
       }
    :: atomic {
        WON(won, got_swap, got_value) ->
        leads[b] = (promised[me] == b);
        has_swap[b] = (got_swap != 0);
        won = 0; got_ballot = 0; got_swap = 0;
        break
       }
    :: goto done
    od;

    /* Phase 2. Only leader 1 proposes the swap by itself; everybody adopts it. */
    do
    :: atomic { leads[b] && !has_swap[b] && b == 1 -> has_swap[b] = true }
    :: atomic {
        /* A member accepts what the leader has so far, and binds itself. The new member has the log. */
        leads[b] ->
        select(m : 0 .. 3);
        if
        :: promised[m] <= b && (m != 3 || has_swap[b]) ->
            if
            :: promised[m] < b && m < 3 -> leads[m + 1] = false
            :: else -> skip
            fi;
            promised[m] = b;
            if
            :: has_swap[b] -> swap_ballot[m] = b; swap_votes[b] = swap_votes[b] | (1 << m)
            :: else -> skip
            fi;
            if
            :: !lapsed[m] && bound[m] != b -> bound[m] = b; bound_to[b] = bound_to[b] | (1 << m)
            :: else -> skip
            fi;
            if
            :: got_value != 0 -> value_ballot[m] = b; value[m] = got_value;
               value_votes[b] = value_votes[b] | (1 << m)
            :: else -> skip
            fi
        :: else -> skip
        fi;
        m = 0
       }
    :: atomic {
        /* The swap is chosen. */
        leads[b] && has_swap[b] && !knows_chosen[b] && SWAPPED(swap_votes[b]) ->
        knows_chosen[b] = true;
        swap_chosen = true;
        assert(MANY(swap_votes[b], OLD) && MANY(swap_votes[b], NEW))   /* PrefixOnSwap */
       }
    :: atomic {
        /* Slot 2 is proposed. */
        leads[b] && got_value == 0 && knows_chosen[b] ->
        got_value = b
       }
    :: atomic {
        leads[b] && got_value != 0 && MANY(value_votes[b], NEW) ->
        assert(chosen_value == 0 || chosen_value == got_value);        /* Agreement */
        chosen_value = got_value
       }
    :: atomic {
        /* The leader counts support of a member that is not bound to it. */
#ifdef UNBOUND_COUNTS
        leads[b] -> select(m : 0 .. 3); bound_to[b] = bound_to[b] | (1 << m); m = 0
#else
        false -> skip
#endif
       }
    :: goto done
    od;
done:
    skip
}

/* Each member's support may lapse once; the leader it was bound to stops counting it first. */
proctype Lapse(byte m) {
    atomic {
        lapsed[m] = true;
        bound_to[1] = bound_to[1] & (15 - (1 << m));
        bound_to[2] = bound_to[2] & (15 - (1 << m));
        bound_to[3] = bound_to[3] & (15 - (1 << m))
    }
}

/* LeaseExclusion, at every moment. */
active proctype Monitor() {
    atomic {
        (HOLDS(1) && HOLDS(2)) || (HOLDS(1) && HOLDS(3)) || (HOLDS(2) && HOLDS(3)) -> assert(false)
    }
}

init {
    atomic {
        run Candidate(0, 1);
        /* The rival is a member that stays, or the one that is removed. */
        if
        :: run Candidate(1, 2)
        :: run Candidate(2, 3)
        fi;
        run Lapse(0);
        run Lapse(1);
        run Lapse(2);
        run Lapse(3)
    }
}
