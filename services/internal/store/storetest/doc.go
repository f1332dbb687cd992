// Package storetest is the one suite that every engine of the store must pass, and
// that the store passes over every engine.
//
// An engine's test calls [Run]. The suite runs over the engine as it is and over
// wrappers that do what an engine may do but rarely does: [Twice] calls each Update's
// function once more than needed, as after a conflict, and [Failing] fails in the
// middle. A service's own tests can use them too. [Memory] is an engine
// that conflicts in earnest, so that nothing here is true of one engine only.
package storetest
