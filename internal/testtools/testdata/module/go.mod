module own

go 1.26.0
