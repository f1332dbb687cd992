// Package servicerequest keeps properties with their units and teams, and the requests
// for service at them with their comments, photos and videos.
//
// On disk, each by its id: property, unit, property_team_member, service_request,
// comment, attachment and orphan. The file of an attachment is a blob whose key is the
// organization's id, a slash, and the attachment's id.
//
// What is always true, of which verify asks what one can see in the records (invariants.go):
//   - A property, and what is at it, exists only for its team, and has a team of at
//     least one. A service request exists for whom sight.go says, and for nobody else:
//     get, list, comment, attachment and every change ask there.
//   - A value in a custom field, a category, tag or label was one of the organization when the
//     request got it, and each required field had a value when the request was made or its
//     values last changed. What identity said of them is kept as long as its lease allows
//     (package lease), so that a call that began after a field was deleted goes by that.
//   - A service request moves by the table in states.go and by nothing else, whoever
//     moves it.
//   - Its cycle timer runs exactly while it is REQUESTED, DECLINED or ACCEPTED and not
//     deleted. A hold that expires ends at its expire_time, however late it is noticed.
//   - Who has been given work was an active member of the organization when it was given.
//   - A blob has an attachment or an orphan of its id. It is written whole before its
//     attachment is, and deleted before its orphan is. So nothing that a failed upload
//     or a purge leaves is forgotten.
//   - Deleted requests and attachments can be restored for 28 days, then they are purged
//     with all that belongs to them.
package servicerequest
