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
// Each replica has a hub of its own, and publishes the writes that it made. A
// subscriber has a stream to each (CacheConfig.Replicas) and holds the lease while it
// has one from all of them; so there is none who could use something and would not
// hear what any replica writes. A repeated write may come to another replica than the
// first, which may have committed it and be frozen; so a repeat publishes again and does
// not rely on Barrier. The replicas that a subscriber knows must be all that can write.
// Until they are kept as described here, a source runs as one process:
//
// The list of replicas is a record in the source's database, with a number that grows. A
// replica commits only in transactions that find it on the list, so one that was taken
// off can write no more, frozen or not. Each pong tells the list, and a lease counts only
// with pongs from all on it under the same number. A subscriber that learns of another
// list drops everything before it goes by it; so it has nothing that a replica it no
// longer listens to has changed. A replica that comes is first put on the list, and
// commits nothing until the others have each published the change of the list and
// waited for it.
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
