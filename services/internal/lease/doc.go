// Package lease keeps what one process remembers of another's facts true: who a
// session belongs to, and what a caller may do. It is the mechanism behind the
// promise of the suite:
//
//	When a write that takes something away returns, no process allows by what was
//	true before it, whatever has crashed, is frozen or is cut off.
//
// A source (identity, permissions) has a [Hub]. Every process, the source's own too,
// has a [Cache] for each source, with a stream to the hub. A fact is loaded once and
// then read from memory, in tens of nanoseconds. A write commits, calls [Hub.Publish]
// with the tags of the facts that it made untrue, and [Hub.Wait]. Wait returns when
// each subscriber has dropped those facts, or may no longer use any fact at all.
//
// # The lease
//
// A subscriber uses what it remembers only while it holds a lease, which it renews
// by a ping four times in its duration D. Its side of the lease ends D after the
// moment when it sent the newest ping that was answered. The hub's side ends D and a
// margin M after the moment when it received it. The ping was sent before it was
// received, so the hub's side ends later if over D the two clocks drift apart by less
// than M. Nothing else is assumed of the network: it may delay, lose, cut and
// reconnect what it likes. Without a lease the answer is UNAVAILABLE (LEASE_LOST).
//
// Neither side revives what has run out. The hub forgets a subscriber whose side
// ended, and ends its stream with ABORTED; a ping that comes later is not answered.
// The subscriber drops everything and begins anew with an empty memory.
//
// # Why the promise holds
//
// Let a write commit, publish as number s, and Wait return. Let somebody ask Get after
// that, and be answered with an entry. Get reads the entry, then the clock, then the
// end of the lease, then whether the entry was dropped. Let t be the moment when it
// read the clock. The lease held at t, so the hub counted this subscriber at t, as it
// did ever since the subscriber had joined on the stream that the lease came by. One
// of these is true:
//
//   - It had joined before s was published. Wait returned nevertheless, so it had
//     acknowledged s. It acknowledges after it has dropped every entry with one of the
//     tags. The entry was not dropped, though it was looked at after t; so it was
//     added after the drop, by a load.
//   - It joined after s was published. It had dropped everything before; so the entry
//     was added later, by a load.
//
// A load is kept only if since its beginning no invalidation of one of its tags was
// carried out, nor everything dropped. So this load began after s was carried out, or
// after the subscriber joined; in both cases after s was published, and so after the
// commit. The source told it what was true after the write, which is what had to be
// shown. The same argument with the time of Valid in place of Get's holds for an entry
// that somebody has kept in hand.
//
// The load's tags are known only when it returns, so the cache remembers the newest
// 4096 invalidations. A load that more than those overtook is repeated like one that was
// overtaken by its own; after eight attempts the answer is UNAVAILABLE.
//
// # Case by case
//
//   - Frozen subscriber (SIGSTOP, a long pause): it acknowledges nothing; Wait returns
//     when the hub's side of its lease ended. When it goes on, the first thing that Get
//     does after reading an entry is to read the clock, which shows a time after the
//     lease. No timer and no message is needed for it. The default clock counts the
//     time that a Linux machine is suspended, too.
//   - Cut network: as above, and the subscriber stops answering by itself, when its
//     side ends, which is before the hub's. Its Stale channels are closed.
//   - Crashed subscriber: the hub cannot tell it from one that is cut off, and waits as
//     long. One that ends in order says that it has dropped everything; so does one that
//     reconnects, with the secret term of its former stream, and no write waits for that.
//   - Crashed source: the streams end, and the subscribers drop everything. A subscriber
//     that does not hear of it may hold a lease of the former life, of which the next
//     life knows nothing. So a hub begins in quarantine: it acts as if it had granted a
//     lease when it started, and no Wait returns before that has run out. A write that
//     was committed and not published is covered by it. Only a source whose data did
//     not exist before (HubConfig.FirstStart) needs none. That there are never two lives
//     at a time is up to the source's store, which is locked by one process.
//   - Frozen source: it renews nothing, so the leases run out and nothing is allowed.
//   - Slow subscriber: what it has yet to be told is a position in the hub's log of
//     the newest 4096 tags, and not a queue. It gets each tag once, and if it falls
//     further behind the word "everything". Publish never blocks.
//   - Subscriber that pings but does not carry out: a ping must acknowledge all that came
//     with the pong before it, or the stream is ended. So the longest that Wait takes is a
//     round trip with all subscribers alive, and else D+M from the last ping before
//     the trouble.
//   - Write racing a load: the load is repeated, as above.
//   - Caller of the write gone: Publish has taken effect, whoever waits.
//   - Repeated write (same request_id) that is answered from memory: the first may have
//     committed and not yet published. [Hub.Barrier] waits for the writes that announced
//     themselves by [Hub.Begin], for all that is published, and for the quarantine.
//
// # What is not promised
//
// What was allowed before the write returned may take effect after it, as if it had been
// faster. Who cannot have that looks at [Entry.Valid] once more right before the effect;
// an open stream waits for [Entry.Stale].
//
// A clock that stands still while the process goes on breaks the lease. CLOCK_BOOTTIME
// does not, except in a virtual machine that its host pauses or restores from a snapshot
// and that is not told: it may use what it remembers for the rest of the lease.
//
// # Several replicas of a source
//
// Each replica has a hub of its own, and publishes the writes that it made. Which
// replicas there are is a list in the source's database, with a number that grows by one
// with each change. A replica is a life of a process: one that was taken off and comes
// back has another id. These are the rules; D is the duration of a lease.
//
//  1. What a replica writes commits only if it is on the list, and whoever takes it off
//     waits for what it is committing ([store.DB.Fence]). Who changes nothing, because
//     another has made the change before, was on the list in the snapshot in which he
//     saw it, and publishes it again.
//  2. A replica reads the list again and again. A pong names the newest list that it read,
//     and grants a lease that ends at most D after that reading began ([Hub.Learn]).
//  3. A subscriber holds the lease by one list: while the newest lease of each replica on it,
//     granted under its number, holds. A pong that names another list prolongs nothing.
//  4. When each replica on another list has granted a lease under its number, the subscriber
//     drops everything, and from then on goes by that list. It never is without a lease
//     for it, if the replicas read the list often enough.
//  5. A replica that comes is put on the list, and lets no Wait return until D and M after
//     that, on its own clock ([Hub.Join]). It is the quarantine that a source has anyway
//     when it starts.
//
// Why the promise holds: let a write commit through replica R, let R publish it and its Wait
// return, and let somebody ask a subscriber after that, who goes by list n at the moment t
// when he reads the clock.
//
//   - R is on n. Then he had a stream to R at t, by which he held a lease of R, and the
//     argument above holds as it is: everything he loaded before that stream began, or
//     before the list n, he has dropped.
//   - n is older than R. Each lease by n ends at most D after some replica read n, which was
//     before R was put on the list. So by the quarantine no lease by n is held at t.
//   - n is younger: R was taken off before n. By rule 1 the write had committed before that,
//     and he dropped everything when he began to go by n. So all that he has was loaded
//     after the commit.
//
// A write that repeats another's, and changes nothing, is the same but in the last case: R
// was on the list when it saw the change, so the change was committed before R was taken off.
//
// A load may be answered by any replica, even by one that is on no list: it reads the
// database, after the load began.
//
// What follows from it:
//
//   - Frozen replica: nobody holds a lease until the others have taken it off the list, which
//     they do when they have not heard of it for D (internal/server). When it wakes up it
//     can write nothing, and what it grants nobody counts. It finds that it was taken off,
//     and comes back under another id.
//   - Replica that is cut off from the subscribers, but not from the database: nobody holds a
//     lease while it is on the list. It is there by its own will, so it must be stopped.
//   - Replica that is cut off from the database: it grants nothing any more, and is taken off.
//   - Crashed replica: its streams end, so everything is dropped, and as if it were frozen.
//     Its next life at the same address takes its place at once.
//   - Replica that leaves: it ends its work, takes itself off the list, tells its subscribers,
//     and grants leases by the new list, which does not count it, until they have gone on.
//     None is without a lease for that.
//   - A committed write that was never published, because its replica crashed in between: the
//     replica is taken off, and everything is dropped.
//   - The database does not answer: leases run out within D. Nothing can be loaded either.
//   - Several changes of the list in a row: a subscriber goes by the one on which he hears
//     all agree, and holds on to the one before for at most D.
//
// A subscriber begins with the seed, a connection to whichever replica: from it he learns the
// list, and then follows each at its own address. Numbers that go back are believed only from
// the seed and while no lease is held, as after a restore; no rule above needs them to grow.
//
// # Memory
//
// A cache holds at most MaxEntries. To make room it looks at a few entries in turn for one
// that was not used since it last came by, and spares those whose Stale somebody
// waits for, if it can. An evicted entry is no longer told of invalidations, so it is
// not valid any more and its Stale is closed: Stale says "ask again", and not that
// something has changed. Errors are not kept, and a load's caller who goes away does not
// take the others' answer with him.
package lease
