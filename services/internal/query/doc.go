// Package query reads the filter and order_by texts of list requests.
//
// A filter is the part of AIP-160 that a field-service list needs: conditions on
// fields joined by AND,
//
//	state = SCHEDULED AND title : "boiler" AND price.minor_units >= 1000
//
// with the operators = != < <= > >= and, on text, : for "contains" without regard to
// case. A value is a number, true, false, the name of an enum value, or text in
// double quotes, which also writes a time (RFC 3339) and a day, "2026-03-31". A field that
// is absent fulfils only !=. What a record has beside the fields of its message is named
// as if it were fields of the one that holds it (see [More]). An order is a field and
// optionally desc (AIP-132).
//
// Whether the caller may see the fields that a text names is decided before, by
// package authz, from [Paths].
package query
