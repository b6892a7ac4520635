package consulcodec_test

import (
	"log"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
)

// A team moves from kratos: its new programs and those on kratos find each other.
func ExampleKratos() {
	client, err := consul.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	store := consul.New(client, &consul.Options{
		Codec:       consulcodec.Kratos(),
		OnMalformed: func(m *naming.MalformedError) { log.Print(m) },
	})
	c := naming.New(store, nil)
	defer c.Close()
}
