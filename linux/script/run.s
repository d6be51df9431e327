// The functions that package runtime provides have no body here.
