module github.com/naming-go/naming/interop/peer

go 1.26.0
