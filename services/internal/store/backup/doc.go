// Package backup moves the stores of services: into a file and back, from one kind of
// database to another, and while the services run.
//
// # The file
//
// A backup is the 16 bytes "latchkey backup\n" and then chunks:
//
//	4 bytes    length of the message, big endian
//	32 bytes   SHA-256 of the checksum of the chunk before, these 4 bytes, and the message
//	message    latchkey.store.v1.BackupChunk in the protobuf wire format
//
// For the first chunk the checksum before is the SHA-256 of the 16 bytes. So each chunk
// proves itself and all that came before it: the checksum of the last, which is a
// BackupEnd, is that of the whole. Nothing follows it.
//
// The first chunk is a BackupHeader with the version of the format. Then come, service by
// service and tenant by tenant, the rows of the store in the order of their keys, which are
// the same in every kind of database; the rows of indexes are left out and built again.
// Then the entries that the journals got meanwhile, and then the blobs, if they were
// asked for.
//
// # How it is consistent, while the services run
//
// Rows are read in pages, each page in a transaction of its own that takes milliseconds,
// so that the store never has to keep old rows for a reader. A page read later may
// have what one read before does not. But whatever changes a record is in the tenant's
// journal, with the record's new bytes: doing again, in order, the entries that came after
// the first page makes the rows exactly those of the last entry.
//
// All services are cut at one instant, which is chosen when all rows were read: of each
// tenant a backup has the entries that were committed up to then. A service that has
// handled another's event did so after that was committed, so no service has the effect of
// something that another does not have. That holds as far as the processes' clocks agree;
// where they do not, a restore sets the positions of consumers back to where
// their sources end.
//
// Where a journal is compacted meanwhile, so that entries are gone which the rows need, the
// rows of that tenant are read again, and those that were written do not count. Then all
// services are cut at a later instant.
//
// Notes of decisions and counts of uses belong to no entry. They are read when their page is,
// and once more at the end as far as they are new.
//
// # Going back
//
// An entry has the old bytes too, so a backup can be restored at every revision that its
// journals tell of: entries are taken back from the last one on. Positions of consumers
// are in the entries, and so are set back too. What was erased from the journal
// cannot come back: a restore that would need it says so, and leaves it out
// if that was asked for, with an entry that says so.
//
// # Continuous backup
//
// A folder, or a bucket, with a backup and segments: files of the same form that begin
// with the checksum of the last chunk of the file before. Each has what was committed since.
package backup
