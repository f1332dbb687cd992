// Package bolt is the store's engine for one process: one bbolt file.
//
// On disk is one file, and in it one bucket, "records", with every pair of the store.
// A new file is made under the name "<file>.new", synced, and then renamed, so that a
// file under the right name is always whole.
//
// Beside it is, while it is written to, a write-ahead log, "<file>.wal". A commit puts what it writes
// at the end of the log, syncs that, and then has bbolt write its pages, which it does not
// sync. The state of the file that was last synced as a whole is the base: a read transaction that stays
// open keeps its pages from being written to, and the log has its meta page. After a
// crash the meta page is put back, which undoes what bbolt wrote since, and what the log has is done again
// in one commit. The log has two halves. When one is full the file's state of that moment is synced
// while commits go on in the other, and becomes the base. The list of the file's free pages is
// written for that alone, by a commit of its own: it is long while pages are kept. An Update that is too great
// for the log is a commit of bbolt's own: it writes beside the data that it replaces, syncs, points one of
// two meta pages to it, and syncs again. Close syncs the file and removes the log, so that
// the file alone is all there is.
//
// What is always true:
//
//   - An Update that returned nil is found after a crash, all of it. One that
//     returned another error than [store.ErrUnknownOutcome] is never found.
//   - Updates take effect one after the other. They wait in a line; whoever is in it
//     when a commit ends shares the next one, so that 64 callers need one sync and
//     not 64. Nobody waits for company, and nobody sees what is not yet on disk.
//   - Each Update's function runs in the goroutine of its caller, when it is its turn,
//     and sees what those before it wrote. One that fails or panics adds
//     nothing and harms nobody.
//   - A file never becomes smaller by itself: what is deleted leaves room in it for what
//     comes. Compact makes a new one, "<file>.compact", while the old is in use,
//     and gives it its name when it is whole and synced. Commits wait for the
//     last moment of that, reads for none.
//   - A log that is not of the file beside it, because one of them was put there by hand, is
//     refused, and neither is changed.
//   - After a commit that may or may not be on disk the engine refuses
//     everything. A full disk is no such case: the commit did surely not happen,
//     reads go on, and so do writes as soon as there is room.
package bolt
