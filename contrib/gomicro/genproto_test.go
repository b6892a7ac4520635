package gomicro_test

// go-micro requires a version of google.golang.org/genproto from before that module was
// split. Its packages are those of google.golang.org/genproto/googleapis/rpc too, which gRPC
// imports, and the go command refuses to choose. This import keeps a later version in
// go.mod.
import _ "google.golang.org/genproto/protobuf/field_mask"
