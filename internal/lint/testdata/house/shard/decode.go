package shard

func decodeFirst([]byte) error  { return nil }
func decodeSecond([]byte) error { return decodeFirst(nil) }
