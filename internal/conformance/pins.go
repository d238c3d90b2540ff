package conformance

// What the two Python SDKs need, pinned so that only a change of this file changes what is tested. pip adds
// exceptiongroup on Python 3.10.
var (
	pythonNeeds3 = append([]string{"httpcore2==2.16.2", "httpx2==2.16.2", "truststore==0.10.5"}, pythonNeeds...)
	pythonNeeds2 = append([]string{"certifi==2026.10.18", "distro==1.9.0", "httpcore==1.0.9", "httpx==0.28.1", "tqdm==4.70.1"}, pythonNeeds...)
	pythonNeeds  = []string{
		"annotated-types==0.8.0", "anyio==4.16.0", "h11==0.16.0", "idna==3.20", "jiter==0.19.0", "pydantic==2.14.3",
		"pydantic-core==2.50.4", "sniffio==1.3.1", "typing-inspection==0.4.5", "typing-extensions==4.16.0",
	}
)
