// Package bucket makes the URLs of buckets work in a program that imports it: s3://BUCKET/KEY,
// of Amazon S3 and of what speaks its protocol. Programs without it know files alone.
//
// It is a package of its own because the driver is large. No service imports it, only the
// programs that need it.
package bucket

import _ "gocloud.dev/blob/s3blob" // registers its scheme
