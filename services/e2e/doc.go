// Package e2e tests the suite as its users have it: all five services over gRPC, with
// real sign-ins, in one process and in five.
//
// It holds the stories (scripts/), the access matrix and what else is true of every
// method, the tests with faults, and the benchmarks.
package e2e
