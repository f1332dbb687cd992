// Package bolt is the store's engine for one process: one bbolt file.
//
// On disk is one file, and in it one bucket, "records", with every pair of the store.
// A new file is made under the name "<file>.new", synced, and then renamed, so that a
// file under the right name is always whole. bbolt writes a commit beside the
// data that it replaces, syncs, points one of two meta pages to it, and syncs again.
//
// What is always true:
//
//   - An Update that returned nil is found after a crash, all of it. One that
//     returned another error than [store.ErrUnknownOutcome] is never found.
//   - Updates take effect one after the other. They wait in a line; whoever is in it
//     when a commit ends shares the next one, so that 64 callers need two syncs and
//     not 128. Nobody waits for company.
//   - Each Update's function runs in the goroutine of its caller, when it is its turn,
//     and sees what those before it wrote. One that fails or panics adds
//     nothing and harms nobody.
//   - A file never becomes smaller by itself: what is deleted leaves room in it for what
//     comes. Compact makes a new one, "<file>.compact", while the old is in use,
//     and gives it its name when it is whole and synced. Commits wait for the
//     last moment of that, reads for none.
//   - After a commit that may or may not be on disk the engine refuses
//     everything. A full disk is no such case: the commit did surely not happen,
//     reads go on, and so do writes as soon as there is room.
package bolt
