// Package house holds the rules of this repository that a program can check: what
// may import what, how long things are, what everything says about itself. It has only
// tests.
package house
