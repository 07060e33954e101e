// Command kiloraft is fine.
package main

import _ "github.com/kiloraft/kiloraft/attic" // want imports "belongs to no room"

func main() {}
