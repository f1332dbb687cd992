// Package invoicing keeps the price book, the invoices of an organization to its
// customers with what was paid on them, and the invoices of vendors to the
// organization.
//
// On disk, each by its id: part, invoice with its lines inside, payment,
// vendor_invoice, and the counter that numbers invoices.
//
// What is always true, of which verify asks what one can see in the records (invariants.go):
//   - Amounts are whole minor units in one currency per invoice, and never leave the
//     bounds of latchkey.type.v1.Money. What is multiplied is rounded once, half away
//     from zero, per line; totals are exact sums of lines.
//   - The payments of an invoice are its ledger: their sum is its amount_paid, and its
//     balance is total less amount_paid, never negative.
//   - The numbers of an organization's invoices are 1, 2, 3 and so on. A number is
//     given in the transaction that opens an invoice and is never used again, even if
//     the invoice is voided, deleted or purged.
//   - Document, payment and delivery have each a state of their own. The document moves
//     by the table in states.go, payment follows from the amounts, delivery from sending.
//   - An appointment is invoiced once, however often its end is told. A part without a
//     price, or a finish without parts, makes a draft that nobody can approve until
//     somebody has completed it.
//   - Nobody approves an invoice of his own, be it to a customer or as a vendor.
//   - What a caller may not see is answered as what does not exist: scope.go and
//     vendor_scope.go decide it, for lists and single records alike.
package invoicing
