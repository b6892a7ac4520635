package serve

// ChooseHost is chooseHost for tests.
var ChooseHost = chooseHost
