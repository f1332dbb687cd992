// Package permissions is the service that says who may do what.
//
// # What is on disk
//
// Each organization has, under its own id as the tenant:
//
//   - a [permissionspb.Plan]: the add-on features it has bought, and its first owner;
//   - [permissionspb.Role] records: the roles it made itself, and those of its brand. The
//     built-in ones are data of package catalog and are not stored;
//   - [permissionspb.Group] records;
//   - a [permissionspb.UserAccess] record for each user that somebody gave something:
//     role, group, overrides and settings.
//
// Each brand has, under its own id as the tenant, its Role records, which are the truth of
// what its organizations have, and the list of those. Both have, beside, what an edit of a
// brand's role has left to do: see [brandEdit].
//
// Keys are stored by their exact name, so that the journal can be read; what a
// person typed is looked up tolerantly and stored as the catalog spells it. A name that the
// catalog no longer has counts for nothing.
//
// # The order of evaluation
//
//  1. The role grants. It is the group's role if the user is in a group, else his own. A
//     regional manager with the role PM or PM+ has the keys of that setting in addition.
//  2. The group's grants are added, then its denies taken away.
//  3. The user's overrides that have not ended are applied the same way. An override
//     counts before its expire_time, and no more at that instant.
//  4. Who holds Web holds App.
//  5. A key stays only if every key in its chain of required keys is there, and the
//     plan has the add-on features of the chain.
//
// A setting is the user's own, else the group's, else the role's, else off or the
// least there is. Settings 9 to 16 exist only for a user who is linked to a service
// agent. The link is kept in the record from when scheduling tells of it, and never
// ends. It is asked for, too, when such a setting is written, and when a user joins a group
// that sets one, because the news may not have come yet.
//
// # The questions
//
// Every question is answered by the one evaluation, never by a second opinion: why by
// its layers, and by trying each change that it proposes; who by judging each candidate;
// what if by making the change in a transaction that comes to nothing. What was is read
// from the journal: a loader of a past revision compiles the records as they were then,
// and judges them at the instant asked about. What methods ask for is read from the
// descriptors of all services, which are linked in for that. A replay asks every service
// for its log, and judges each call by what its caller holds with the change and without.
//
// # Files
//
// An import is planned in reads that are short each and all of one revision, by the same
// rules as single changes, and made in a transaction that only writes. If anything changed
// meanwhile, or the caller may hold less, it is planned anew.
//
// # What is always true
//
// Verify asks what one can see of it in the records (invariants.go).
//
//   - [access] and its evaluation are pure: records and an instant in, a set out. A
//     naive second evaluator in the tests says the same.
//   - Nobody gives anybody a key that he does not hold himself, at any instant that is
//     already decided, and nobody raises himself: see [delegation].
//   - As the printed roles go, nobody who edits users holds what technicians do, and so
//     nobody could appoint one. Therefore the first owner holds every key, by
//     overrides that say so, and can pass them on to administrators.
//   - What an organization has of a role of its brand is what the brand's record is, or was
//     before an edit that goes on; and while one goes on that can still be refused, nobody
//     there comes to have the role, or to have more besides.
//   - An organization that was seeded has at least one owner: an active member who holds
//     `Organization: Owner` and `Organization: Users` without a role of the brand, now and at
//     each instant at which an override of his ends.
//   - A change has been announced to every subscriber of the feed "permissions", and
//     each has carried it out or lost its lease, when the call that made it returns; see
//     [change].
package permissions
