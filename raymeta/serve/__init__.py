"""Few-shot classification as a service on Ray Serve.

`door` is the application that answers HTTP: it checks who asks and what (`guard`, `uploads`, `limits`), and `server`
listens. `classifiers` does the work for one process, over the folders of `store`; `replicas` puts it on Ray Serve.
"""
