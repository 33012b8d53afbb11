"""References of the cards: citations, addresses of sources, and the Hub's names of metrics."""

METRICS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "mean_average_precision": "mean average precision",
    "box_average_precision": "average precision of boxes",
    "mask_average_precision": "average precision of masks",
    "keypoint_average_precision": "average precision of keypoints",
    "mean_iou": "mean intersection over union",
    "mAP": "mean average precision",
    "mAP_weighted": "mean average precision, weighted by videos",
}
CITATIONS = {
    "actionformer": """@inproceedings{zhang2022actionformer,
  title     = {ActionFormer: Localizing Moments of Actions with Transformers},
  author    = {Zhang, Chenlin and Wu, Jianxin and Li, Yin},
  booktitle = {European Conference on Computer Vision (ECCV)},
  pages     = {492--510},
  year      = {2022}
}""",
    "tridet": """@inproceedings{shi2023tridet,
  title     = {TriDet: Temporal Action Detection with Relative Boundary Modeling},
  author    = {Shi, Dingfeng and Zhong, Yujie and Cao, Qiong and Ma, Lin and Li, Jia and Tao, Dacheng},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {18857--18866},
  year      = {2023}
}""",
    "video_temporal_localizer": """@inproceedings{liu2024end,
  title     = {End-to-End Temporal Action Detection with 1B Parameters Across 1000 Frames},
  author    = {Liu, Shuming and Zhang, Chen-Lin and Zhao, Chen and Ghanem, Bernard},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2024}
}""",
    "bevt": """@inproceedings{wang2022bevt,
  title     = {BEVT: BERT Pretraining of Video Transformers},
  author    = {Wang, Rui and Chen, Dongdong and Wu, Zuxuan and Chen, Yinpeng and Dai, Xiyang and Liu, Mengchen and
               Jiang, Yu-Gang and Zhou, Luowei and Yuan, Lu},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {14733--14743},
  year      = {2022}
}""",
    "lstcl": """@inproceedings{wang2022long,
  title     = {Long-Short Temporal Contrastive Learning of Video Transformers},
  author    = {Wang, Jue and Bertasius, Gedas and Tran, Du and Torresani, Lorenzo},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2022}
}

@inproceedings{bertasius2021spacetime,
  title     = {Is Space-Time Attention All You Need for Video Understanding?},
  author    = {Bertasius, Gedas and Wang, Heng and Torresani, Lorenzo},
  booktitle = {Proceedings of the International Conference on Machine Learning (ICML)},
  year      = {2021}
}""",
    "tubevit": """@inproceedings{piergiovanni2023tubevit,
  title     = {Rethinking Video ViTs: Sparse Video Tubes for Joint Image and Video Learning},
  author    = {Piergiovanni, AJ and Kuo, Weicheng and Angelova, Anelia},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2023}
}""",
    "uniformer": """@article{li2023uniformer,
  title     = {UniFormer: Unifying Convolution and Self-attention for Visual Recognition},
  author    = {Li, Kunchang and Wang, Yali and Zhang, Junhao and Gao, Peng and Song, Guanglu and Liu, Yu and
               Li, Hongsheng and Qiao, Yu},
  journal   = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year      = {2023}
}
@inproceedings{li2022uniformer,
  title     = {UniFormer: Unified Transformer for Efficient Spatiotemporal Representation Learning},
  author    = {Li, Kunchang and Wang, Yali and Gao, Peng and Song, Guanglu and Liu, Yu and Li, Hongsheng and
               Qiao, Yu},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2022}
}""",
    "videomae_v2": """@inproceedings{wang2023videomaev2,
  title     = {VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking},
  author    = {Wang, Limin and Huang, Bingkun and Zhao, Zhiyu and Tong, Zhan and He, Yinan and Wang, Yi and
               Wang, Yali and Qiao, Yu},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {14549--14560},
  year      = {2023}
}""",
    "videomae": """@inproceedings{tong2022videomae,
  title     = {Video{MAE}: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training},
  author    = {Tong, Zhan and Song, Yibing and Wang, Jue and Wang, Limin},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022}
}""",
    "internvideo": """@article{wang2022internvideo,
  title     = {InternVideo: General Video Foundation Models via Generative and Discriminative Learning},
  author    = {Wang, Yi and Li, Kunchang and Li, Yizhuo and He, Yinan and Huang, Bingkun and Zhao, Zhiyu and others},
  journal   = {arXiv preprint arXiv:2212.03191},
  year      = {2022}
}""",
    "uniformer_v2": """@inproceedings{li2023uniformerv2,
  title     = {UniFormerV2: Unlocking the Potential of Image ViTs for Video Understanding},
  author    = {Li, Kunchang and Wang, Yali and He, Yinan and Li, Yizhuo and Wang, Yi and Wang, Limin and Qiao, Yu},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2023}
}""",
}
# The Hub's names of metrics other than accuracy.
METRIC_TYPES = {
    **dict.fromkeys(("mean_average_precision", "mAP", "mAP_weighted"), "mean_average_precision"),
    **{f"{one}_average_precision": "mean_average_precision" for one in ("box", "mask", "keypoint")},
    **dict.fromkeys(("mean_iou", "mIoU"), "mean_iou"),
    "recall": "recall",
}
SOURCE_URLS = {
    "actionformer_release": "https://github.com/happyharrycn/actionformer_release",
    "TriDet": "https://github.com/dingfengshi/TriDet",
    "OpenTAD": "https://github.com/sming256/OpenTAD",
    "BEVT README": "https://github.com/xyzforever/BEVT",
    "BEVT paper": "https://arxiv.org/abs/2112.01529",
    "Video Swin README": "https://github.com/SwinTransformer/Video-Swin-Transformer",
    "TimeSformer model zoo": "https://github.com/facebookresearch/TimeSformer",
    "VideoMAEv2 model zoo": "https://github.com/OpenGVLab/VideoMAEv2",
    "VideoMAE V2 paper": "https://arxiv.org/abs/2303.16727",
    "TubeViT paper": "https://arxiv.org/abs/2212.03229",
    "UniFormer model zoo": "https://github.com/Sense-X/UniFormer",
    "Sense-X on the Hub": "https://huggingface.co/Sense-X/uniformer_video",
    "UniFormerV2 model zoo": "https://github.com/OpenGVLab/UniFormerV2",
    "UniFormerV2 paper": "https://arxiv.org/abs/2211.09552",
    "mmaction2": "https://github.com/open-mmlab/mmaction2",
    "VideoMAE-Action-Detection": "https://github.com/MCG-NJU/VideoMAE-Action-Detection",
    "InternVideo": "https://github.com/OpenGVLab/InternVideo",
}
