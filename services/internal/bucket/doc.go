// Package bucket makes the URLs of buckets work in a program that imports it: s3://BUCKET/KEY, of
// Amazon S3 and of what speaks its protocol; gs://BUCKET/KEY, of Google Cloud Storage; and
// azblob://CONTAINER/KEY, of Azure Blob Storage. Programs without it know files alone.
//
// It is a package of its own because the drivers are large. No service imports it, only the
// programs that need it: the one with everything, and that of the service which keeps files.
package bucket

// Each registers its scheme.
import (
	_ "gocloud.dev/blob/azureblob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/s3blob"
)
