// Package consulcodec has the formats of other frameworks in Consul. With one of them,
// a Store shares services with the programs of that framework: each side finds what
// the other registers.
//
//	store := consul.New(client, &consul.Options{Codec: consulcodec.Kratos()})
//
// What a framework writes beyond an address and metadata is kept in a member "@entry"
// of the metadata, an object, as the codecs of package backend/etcd do. So an endpoint
// that is read with a framework's codec, and put with the codec of the same framework
// in Consul or in etcd, loses nothing. The member "Meta" of "@entry" has the pairs of
// the entry's Meta whose place in the metadata something else takes.
//
// An entry that a Store has put says the same to every Store, whatever the codec.
package consulcodec
