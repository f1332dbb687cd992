// Package states moves records from state to state by one table per noun, and tells
// from the same table what can be done with a record now.
//
// A table lists the calls that touch a record in some state: in which states each
// may be called, to which state it leads, and what else must be true between caller
// and record. A handler applies a row; available_actions is every row asked without
// doing it. So the two cannot differ.
package states
