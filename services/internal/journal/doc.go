// Package journal shows the journals of a process to those who may see what is in them.
//
// Each service says with [Show] which of its collections appear, by which method such
// records are got, and which of them exist for a caller; with [ShowSecret] that changes
// of a collection appear without values; with [ShowEvent] which of its events appear.
// What it says nothing of appears to nobody.
//
// What is always true:
//   - A change is shown to whoever may get the record as it is now; of a record that is
//     gone, to whoever might have got it as it was last.
//   - A value leaves as what the message would be after the guard's redaction, decided
//     when it is sent.
//   - What a list, a history and a watch show of an entry is made by one function.
//   - A checkpoint is signed only after the chain was walked to it.
package journal
